/*
 * What the files of decoupled models share: requests that were taken, the flight that a batch of
 * them is, and the slots of responses. streams.c keeps them, decoupled.c takes and ends requests,
 * response.c answers, statistics.c tells the server how.
 */
#ifndef UMO_KIT_STREAMS_H
#define UMO_KIT_STREAMS_H

#include "kit/kit.h"

#include <stdatomic.h>

typedef TRITONBACKEND_ModelInstanceResponseStatistics kit_statistics;

struct umo_request {
    kit_flight *flight;
    kit_request own;
    TRITONBACKEND_ResponseFactory *factory;
    _Atomic bool cancelled;
    uint64_t start_ns;
    kit_statistics *statistics; /* for an end without a response of the engine's; or NULL */
    /* Two responses that are sent at once may go to one place: one after the other. */
    pthread_mutex_t delivery;

    /* Under the flight's lock. */
    size_t open;          /* responses */
    umo_response *writer; /* the one that writes to the client's memory in place */
    size_t behind;        /* open responses that will be copied there */
    bool finishing;
    bool ended; /* somebody is sending FINAL */
    umo_error verdict;
    umo_request *next; /* to be ended together */
};

struct kit_flight {
    kit_flight *next;
    umo_instance *instance;
    umo_batch batch; /* its inputs, once execute has returned */
    umo_request *requests;
    kit_request **members;
    size_t capacity;
    pthread_mutex_t lock;
    size_t alive;
    bool executing;
};

struct umo_response {
    umo_response *next;
    umo_request *request;
    umo_instance instance; /* what placing needs of the request's, with mappings of its own */
    umo_batch batch;
    kit_request own;
    kit_request *member;
    bool behind; /* was placed while another one wrote to the client's memory */
    uint64_t start_ns;
    kit_statistics *statistics; /* or NULL */
};

struct kit_streams {
    umo_model *model;
    pthread_mutex_t lock;
    pthread_cond_t freed;
    umo_response *slots;
    size_t slot_count;
    umo_response *free;
    kit_flight *idle;
};

/* streams.c */
/* A flight with room for so many requests; NULL without memory. */
kit_flight *kit_flight_take(kit_streams *streams, size_t count);
void kit_flight_give(kit_streams *streams, kit_flight *flight);
/* A free slot, or NULL when none became free in time. */
umo_response *kit_slot_take(kit_streams *streams, uint64_t timeout_ns);
void kit_slot_give(kit_streams *streams, umo_response *slot);

/* statistics.c */
/* NULL where the server has none. */
kit_statistics *kit_statistics_create(void);
void kit_statistics_destroy(kit_statistics *statistics);
/* Tells the server of a response that was just sent. output_ns is when its outputs were computed; 0
 * for one that has none. The request is not released yet. */
void kit_statistics_report(kit_statistics *statistics, const umo_request *request,
                           uint64_t start_ns, uint64_t output_ns, TRITONSERVER_Error *failure);

/* decoupled.c */
/* A response less; whoever takes away the last hindrance ends the request. */
void kit_stream_close(umo_request *request);
/* Is a response that is about to be sent the last thing that the client gets? Then its sender calls
 * the two below, before and after it sends FINAL. */
bool kit_stream_final(umo_request *request, bool final);
void kit_stream_leave(umo_request *request);
void kit_stream_release(umo_request *request);

#endif
