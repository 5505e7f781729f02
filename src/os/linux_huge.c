/*
 * Huge pages of private memory on Linux: one page fault, one entry of the page tables and one place
 * in the translation cache for 2 MiB. The system's setting says whether they are there for all
 * memory ("always"), for what asks for them ("madvise"), or not ("never").
 */
#include "os/os.h"

#include "os/linux_cgroup.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FOLDER "/sys/kernel/mm/transparent_hugepage/"

/* Longer ones (32 MiB and 512 MiB, on ARM with pages of 16 and 64 KiB) are no measure for memory
 * that is to be held closely. */
#define HUGE_MAX_BYTES ((unsigned long)4 << 20)

static bool text_of(const char *path, char *out, size_t out_bytes)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    bool read = file >= 0 && umo_file_read(file, out, out_bytes);
    if (file >= 0) {
        (void)close(file);
    }
    return read;
}

/* Not unless it is wished: a huge page may be dear at the moment when a request needs it, where
 * memory is in pieces, or is the host's (docs/decisions/0008). */
static size_t huge_page_look(void)
{
    char text[64];
    const char *wish = getenv("UMO_HUGE_PAGES");
    if (wish == NULL || strcmp(wish, "on") != 0 ||
        (text_of(FOLDER "enabled", text, sizeof text) && strstr(text, "[never]") != NULL)) {
        return 0;
    }
    /* One page of a page table is full of entries of eight bytes; who hides /sys has that, too. */
    const unsigned long page_bytes = (unsigned long)sysconf(_SC_PAGESIZE);
    unsigned long bytes = page_bytes / 8 * page_bytes;
    if (text_of(FOLDER "hpage_pmd_size", text, sizeof text)) {
        bytes = strtoul(text, NULL, 10);
    }
    return bytes <= HUGE_MAX_BYTES && (bytes & (bytes - 1)) == 0 ? (size_t)bytes : 0;
}

size_t umo_os_huge_page_bytes(void)
{
    /* SIZE_MAX: nobody looked yet. Two threads that both look find the same. */
    static _Atomic size_t known = SIZE_MAX;
    size_t bytes = atomic_load_explicit(&known, memory_order_relaxed);
    if (bytes == SIZE_MAX) {
        bytes = huge_page_look();
        atomic_store_explicit(&known, bytes, memory_order_relaxed);
    }
    return bytes;
}

void umo_os_pages_huge(void *pages, size_t size_bytes, bool huge)
{
    (void)madvise(pages, size_bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}
