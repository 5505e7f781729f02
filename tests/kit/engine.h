/*
 * The backend that is tested with: on purpose a simple engine, whose answer anybody can work out,
 * with every way to misbehave.
 *
 * Output i is input i (or the last one, where there are fewer), each byte changed by engine_byte();
 * BYTES come back as they are; an absent input gives an output of ABSENT_BYTE of shape
 * [rows, 1...].
 */
#ifndef UMO_TESTS_KIT_ENGINE_H
#define UMO_TESTS_KIT_ENGINE_H

#include <umo/triton.h>

#include <stdatomic.h>

#define ABSENT_BYTE 0x77

typedef enum engine_trouble {
    TROUBLE_NONE,
    TROUBLE_MODEL_INIT,
    TROUBLE_INSTANCE_INIT,
    TROUBLE_WORDLESS,       /* execute fails without words */
    TROUBLE_BEFORE_INPUTS,  /* execute fails at once */
    TROUBLE_AFTER_INPUTS,   /* after it took all inputs */
    TROUBLE_AFTER_OUTPUTS,  /* after it took all outputs too */
    TROUBLE_AFTER_LAUNCH,   /* with work under way, whose fence it gave */
    TROUBLE_FAIL_ONE,       /* the request number engine.which */
    TROUBLE_FAIL_ONE_LATER, /* likewise, after its outputs were placed */
    TROUBLE_NO_OUTPUT,      /* does not place the last output */
    TROUBLE_WRONG_RANK,     /* and other lies about the last output */
    TROUBLE_WRONG_DIM,
    TROUBLE_WRONG_ROWS,
    TROUBLE_WRONG_DTYPE,
    TROUBLE_NEGATIVE_DIM,
    TROUBLE_OUTPUT_TWICE,
    TROUBLE_NO_SUCH_OUTPUT,
    TROUBLE_LATE_WRONG_SIZE,
    TROUBLE_LATE_BAD_STRINGS,
    TROUBLE_IGNORES_ERRORS, /* of its inputs, and asks again */
    TROUBLE_FORGETS_INPUTS  /* takes them, computes nothing with them, gives no fence */
} engine_trouble;

typedef struct engine_settings {
    umo_device *device; /* NULL: the CPU */
    uint32_t queue;
    bool synchronous; /* waits itself and gives no fence */
    bool late;        /* every output after the computation */
    bool passes_on;   /* and its late outputs are its inputs' own memory, unchanged */
    bool insists;     /* places outputs that nobody wants */
    bool completes;   /* the configuration: one input, one output */
    engine_trouble trouble;
    size_t which;
    void (*before)(umo_batch *batch);  /* called first in execute */
    void (*between)(umo_batch *batch); /* called when all inputs were taken */
    void (*prepare)(umo_model *model); /* called in model_init */
    /* Instead of all that: a test that is its own engine. */
    umo_status (*run)(umo_instance *instance, umo_batch *batch, umo_error *error);

    /* What was seen. */
    const char *config; /* in model_init; the kit's */
    _Atomic uint64_t batches;
    _Atomic uint64_t launches;
    umo_kernel *change; /* of the last instance: (in, out, output as a byte) */
} engine_settings;

extern engine_settings engine;

/* What the engine makes of a byte for an output. */
static inline unsigned char engine_byte(unsigned char byte, size_t output)
{
    return (unsigned char)(byte ^ (0x5A + output));
}

#endif
