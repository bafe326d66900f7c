/* Handing back the memory of a compiler that has done its work: LLVM's heap and the resident pages of its code. Both would otherwise
 * stay beside the packed weights for the whole run. The code comes back from the page cache if something is compiled again.
 */
#include "codegen/cg.h"

#include <link.h>
#include <malloc.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int release_code(struct dl_phdr_info *info, size_t size, void *user) {
    if (!info->dlpi_name || !strstr(info->dlpi_name, "libLLVM")) return 0;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || (segment->p_flags & PF_W)) continue;
        uintptr_t start = (info->dlpi_addr + segment->p_vaddr + page - 1) / page * page;
        uintptr_t end = (info->dlpi_addr + segment->p_vaddr + segment->p_memsz) / page * page;
        if (end > start) madvise((void *)start, end - start, MADV_DONTNEED);
    }
    return 0;
}

void cg_release_compiler(void) {
    malloc_trim(0);
    dl_iterate_phdr(release_code, NULL);
}
