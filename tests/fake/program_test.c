/* Libraries, functions, pipelines and what they do on the fake. */
#include "world.h"

static void a_kernel_runs_over_its_grid(void **state)
{
    world *w = *state;
    id pipeline = world_pipeline(w, "add_one");
    id buffer = device_buffer(w->device, 64, SHARED);
    uint32_t *words = buffer_contents(buffer);
    for (uint32_t i = 0; i < 16; i++) {
        words[i] = i;
    }
    id command = queue_command(w->queue);
    id encoder = command_compute(command);
    compute_pipeline(encoder, pipeline);
    compute_buffer(encoder, buffer, 0, 0);
    compute_dispatch(encoder, (mtl_size){16, 1, 1}, (mtl_size){4, 1, 1});
    end_encoding(encoder);
    commit(command);
    command_wait_ended(command);
    assert_int_equal(command_status(command), COMPLETED);
    for (uint32_t i = 0; i < 16; i++) {
        assert_int_equal(words[i], i + 1);
    }
    release(buffer);
    release(pipeline);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        world_test(a_kernel_runs_over_its_grid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
