/* Asks for the tile registers of AMX. */
#include "runtime/tiles.h"

#include <sys/syscall.h>
#include <unistd.h>

/* <asm/prctl.h> of Linux 5.16, and the state's number */
enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };

bool rt_tiles_permitted(void) {
#if defined(__x86_64__) && defined(SYS_arch_prctl)
    /* asking again is allowed and cheap */
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}
