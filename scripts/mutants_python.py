"""Mutants of the Python extension. The form is that of mutants.py; python.core runs python/tests/test_core_*.py."""

from mutants import mutant

CORE = "python/core/"
TESTS = ("python.core",)

# noticed by test_a_buffer_is_not_released_under_its_views
mutant(
    "Python: a buffer is released under its views",
    CORE + "buffer.c",
    "if (self->exports > 0) {",
    "if (false) {",
    *TESTS,
)
# test_read_only_stays_read_only
mutant(
    "Python: read-only memory is shown for writing",
    CORE + "tensor.c",
    "if ((flags & PyBUF_WRITABLE) != 0 && read_only) {",
    "if (false) {",
    *TESTS,
)
# test_an_array_that_outlives_its_block_keeps_the_bracket
mutant(
    "Python: a bracket ends under its arrays",
    CORE + "view.c",
    "umo_status status = self->exports == 0 ? bracket_close(self) : UMO_OK;",
    "umo_status status = bracket_close(self);",
    *TESTS,
)
# test_a_block_that_fails_leaves_nothing_valid
mutant(
    "Python: a write that failed counts as done",
    CORE + "view.c",
    "self->failed = raised != Py_None;",
    "self->failed = false;",
    *TESTS,
)
# test_a_tensor_keeps_its_array_and_lets_it_go
mutant(
    "Python: a wrapped array is never let go of",
    CORE + "wrap.c",
    "if (f->keep != NULL) { Py_DECREF(f->keep); } else { PyBuffer_Release(&f->view); }",
    "",
    *TESTS,
)
# test_a_capsule_is_consumed_once
mutant(
    "Python: a capsule is taken twice",
    CORE + "wrap.c",
    'managed != NULL ? "used_dltensor_versioned" : "used_dltensor"',
    'managed != NULL ? "dltensor_versioned" : "dltensor"',
    *TESTS,
)
# test_what_has_no_type_of_ours_is_refused_in_words
mutant(
    "Python: bytes in the other order are taken for ours",
    CORE + "dtype.c",
    "if ((*letter == FOREIGN_ORDER || *letter == '!') && item_bytes > 1) {",
    "if (false) {",
    *TESTS,
)
# test_the_processs_context_ends_with_its_last_user
mutant(
    "Python: a closed context stays",
    CORE + "context.c",
    "if (--self->uses == 0 && self->closed) {",
    "if (--self->uses == 0 && false) {",
    *TESTS,
)
# test_what_lies_badly_is_refused_with_reason_and_remedy
mutant(
    "Python: strides between elements are rounded",
    CORE + "wrap.c",
    "if (strides[i] % item_bytes != 0 && f->dims[i] > 1) {",
    "if (false) {",
    *TESTS,
)
# test_each_allocation_of_pythons_may_fail
mutant(
    "Python: memory that is out is taken for an attribute that is missing",
    CORE + "errors.c",
    "if (umo_py_error_lasts()) {",
    "if (false) {",
    *TESTS,
)
