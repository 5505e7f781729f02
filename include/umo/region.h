/**
 * @file region.h
 * Memory known for longer than one use: regions that were registered once, and the wraps inside
 * them.
 *
 * A wrap is found again by its address, which is sound only while nobody can unmap the memory
 * behind our back. So a region comes from somebody who vouches for its life: the caller
 * (umo_region_register), or an own view of shared memory (umo_view_find), whose mapping is ours.
 */
#ifndef UMO_REGION_H
#define UMO_REGION_H

#include <umo/buffer.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The regions and views of a process, and the wraps in them. A context owns one (context.h). */
typedef struct umo_registry umo_registry;
typedef struct umo_region umo_region;
typedef struct umo_view umo_view;

/** Limits of a registry; zero means the default. */
typedef struct umo_registry_options {
    size_t wraps_max; /**< cached wraps; default 16384 */
    /** own views; default 16384, or a quarter of the mappings that a process may have */
    size_t views_max;
    uint64_t views_bytes_max; /**< address space in views; default: the size of physical memory */
} umo_registry_options;

/** Errors: NOMEM. Ownership: umo_registry_destroy(). */
UMO_API UMO_MUST_USE umo_status umo_registry_create(const umo_registry_options *options,
                                                    umo_scope *scope, umo_registry **out,
                                                    umo_error *error);
/** All regions were released and all wraps given back before. NULL is allowed. */
UMO_API void umo_registry_destroy(umo_registry *registry);

/**
 * Promises that [data, data + size_bytes) stays mapped, to the same memory, until the region is
 * released.
 *
 * @param writable  Devices may write to it.
 *
 * Errors:    INVAL  empty, wraps around, or overlaps a region that is registered.
 *            NOMEM.
 * Ownership: one region, given back by umo_region_release(); the memory stays the caller's.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_region_register(umo_registry *registry, void *data,
                                                    size_t size_bytes, bool writable,
                                                    umo_region **out, umo_error *error);

/** Drops the region's cached wraps, waiting for their uses, and forgets it. NULL is allowed.
 * Threads: any. */
UMO_API void umo_region_release(umo_region *region);

/**
 * Wraps memory inside a registered region or view; the same range on the same device comes from the
 * cache. Bytes that are valid on the host are its owner's again: what a device still holds of them
 * is stale.
 *
 * @param scope  For whom it is counted; NULL for the registry's own.
 *
 * Errors:    NOT_FOUND  no region holds the whole range.
 *            else as umo_buffer_import().
 * Ownership: one reference.
 * Threads:   any.
 * Cost:      a hit is one hash look-up and one short lock: no system call, no driver call, no
 * allocation.
 */
UMO_API UMO_MUST_USE umo_status umo_registry_wrap(umo_registry *registry, umo_device *device,
                                                  umo_scope *scope, void *data, size_t size_bytes,
                                                  bool writable, umo_buffer **out, umo_reason *why,
                                                  umo_error *error);

/** What the system says about the memory at an address. */
typedef struct umo_mapping {
    uintptr_t start;       /**< first address of the mapping */
    uintptr_t end;         /**< one past its last */
    uint64_t device;       /**< of the file behind it; 0 for anonymous memory */
    uint64_t inode;        /**< likewise; 0 for anonymous memory */
    uint64_t offset_bytes; /**< of start in that file */
    bool shared;           /**< other processes can change it */
    bool readable;
    bool writable;
} umo_mapping;

/**
 * Which mapping an address lies in.
 *
 * Errors:    NOT_FOUND    nothing is mapped there.
 *            UNSUPPORTED  the system has no quick way to tell.
 * Threads:   any.
 * Cost:      one system call (PROCMAP_QUERY); on macOS two for shared memory, of which the second
 *            grows with the mapping's resident pages.
 */
UMO_API UMO_MUST_USE umo_status umo_mapping_query(const void *address, umo_mapping *out);

/**
 * What was learned about this process's mappings for as long as they cannot change: those behind
 * the requests of one execution, which the server holds meanwhile.
 *
 * Where the system has no quick answer for one address (Linux before 6.11), its whole map is read
 * once, when that is worth it: copying so far unknown memory is cheaper for few bytes. The map is
 * read as soon as the bytes that were asked about would have taken as long to copy, so both
 * together cost at most twice what knowing beforehand would have cost.
 */
typedef struct umo_mappings umo_mappings;

/** Errors: NOMEM. Ownership: umo_mappings_destroy(). */
UMO_API UMO_MUST_USE umo_status umo_mappings_create(umo_mappings **out, umo_error *error);
/** NULL is allowed. */
UMO_API void umo_mappings_destroy(umo_mappings *mappings);

/** Mappings may have changed: nothing is known any more. Threads: one at a time. Cost: none. */
UMO_API void umo_mappings_forget(umo_mappings *mappings);

/**
 * Which mapping an address lies in.
 *
 * @param size_bytes  How many bytes there are at stake.
 * @param[out] out    Good until the next call.
 *
 * Errors:    NOT_FOUND    nothing is mapped there.
 *            REFUSED      not known, and cheaper to copy than to find out.
 *            UNSUPPORTED, SYSTEM, NOMEM  it cannot be found out.
 * Threads:   one at a time.
 * Cost:      nothing for a mapping that is known; else one system call, or one read of the map.
 */
UMO_API UMO_MUST_USE umo_status umo_mappings_find(umo_mappings *mappings, const void *address,
                                                  size_t size_bytes, const umo_mapping **out);

/** From how many bytes on the process's map is read on a system without a quick answer: the time of
 * a read, measured, times the rate of umo_memory_read(), measured. Threads: any. Cost: the first
 * call measures, for less than 1 ms as a rule. */
UMO_API uint64_t umo_mappings_crossover_bytes(void);

/**
 * Gives an own view of shared memory that somebody else mapped into this process.
 *
 * The view is a second mapping of the same memory, made by address alone, so it outlives the first
 * one: nobody but umo can unmap it, and whatever is registered on it stays valid. Views are kept
 * and found again by the identity of the file behind them, never by address.
 *
 * @param mapping    What umo_mapping_query() said of data just now.
 * @param[out] own   The address in the view of the byte at data.
 * @param[out] view  Hold it while own is used: umo_view_release().
 *
 * Errors:    REFUSED      the memory is not shared, or changed meanwhile.
 *            UNSUPPORTED  the system cannot duplicate a mapping.
 *            LIMIT        all views are in use.
 *            NOMEM.
 * Threads:   any.
 * Cost:      known: one hash look-up, whatever the number of views. New: three system calls, and
 * one read of the process's map where it has no quick answer for an address.
 */
UMO_API UMO_MUST_USE umo_status umo_view_find(umo_registry *registry, void *data, size_t size_bytes,
                                              const umo_mapping *mapping, void **own,
                                              umo_view **view, umo_error *error);

/** A view that has lost bytes goes with its last user; any other one stays until its first mapping
 * is gone, or somebody else needs its room. NULL is allowed. Threads: any. */
UMO_API void umo_view_release(umo_view *view);

/**
 * Whether a byte of [own, own + size_bytes), inside the view, was no longer in the file when it was
 * used: its client has cut the file short. From the first such byte on, the view reads as zeros and
 * what is written goes nowhere.
 *
 * Threads: any. Cost: one load where nothing is lost.
 */
UMO_API bool umo_view_lost(const umo_view *view, const void *own, size_t size_bytes);

/**
 * Copies bytes out of memory of this process that somebody may take away meanwhile.
 *
 * @return  How many were copied, from the first on: fewer than size_bytes where the memory ended.
 *
 * Threads: any. Cost: a system call, and one to two times memcpy's time; where a sandbox forbids
 * process_vm_readv, two to four times.
 */
UMO_API size_t umo_memory_read(void *to, const void *from, size_t size_bytes);
/** The same into such memory. Threads: any. Cost: as umo_memory_read(). */
UMO_API size_t umo_memory_write(void *to, const void *from, size_t size_bytes);

/**
 * Drops idle views whose first mapping is gone, so that an unregistered region's memory is not kept
 * alive. It is done about once a second while there are idle views, on umo's keeper thread. Returns
 * how many were dropped.
 *
 * Threads: any. Cost: one read of the process's map.
 */
UMO_API size_t umo_registry_sweep(umo_registry *registry);

/** Figures of a registry. */
typedef struct umo_registry_stats {
    size_t regions;
    size_t views;
    uint64_t view_bytes;
    size_t wraps;
    uint64_t wrap_hits;
    uint64_t wrap_misses;
    uint64_t view_hits;
    uint64_t view_misses;
    uint64_t evictions;
} umo_registry_stats;

/** Reads the figures, all of one instant. Threads: any. */
UMO_API void umo_registry_read(umo_registry *registry, umo_registry_stats *out);

#ifdef __cplusplus
}
#endif

#endif
