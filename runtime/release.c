/* Giving back resident pages, of files and of the process's own. */
#include "runtime/release.h"

#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void rt_release_pages(const void *from, const void *to) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = ((uintptr_t)from + page - 1) / page * page,
              last = (uintptr_t)to / page * page;
    if (first < last) madvise((void *)first, last - first, MADV_DONTNEED);
}

static int release_object(struct dl_phdr_info *info, size_t size, void *name) {
    if (!info->dlpi_name || !strstr(info->dlpi_name, name)) return 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        const char *start = (const char *)(uintptr_t)(info->dlpi_addr + segment->p_vaddr);
        if (segment->p_type == PT_LOAD && !(segment->p_flags & PF_W)) rt_release_pages(start, start + segment->p_memsz);
    }
    return 0;
}

void rt_release_library(const char *name) {
    dl_iterate_phdr(release_object, (void *)name); /* only read */
}
