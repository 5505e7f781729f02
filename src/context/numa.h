/*
 * What the process knows of buffers and nodes: whose threads use what, and buffers that follow.
 */
#ifndef UMO_CONTEXT_NUMA_H
#define UMO_CONTEXT_NUMA_H

#include <umo/optimizer.h>

/* Looks at all buffers once, and moves those of a scope that are to follow their threads, as far as
 * one look may; *unfinished: not all. Returns how many of the scope's have pages of their own, 0
 * with one node. Not while another thread looks: then 1. */
size_t umo_numa_run(const umo_scope *scope, bool *unfinished);

#endif
