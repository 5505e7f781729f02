"""Mutants of the Python extension. The form is that of mutants.py; python.core runs python/tests/test_core_*.py."""

from mutants import mutant, mutant_of

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

# ---- found by a review ----

# test_a_block_that_ends_while_its_view_goes_out_shows_nothing
mutant(
    "Python: a view goes out whose block has ended meanwhile",
    CORE + "view.c",
    "!umo_py_dlpack_wish_take(given, side_device(self), &wish) || !open_check(self)) {",
    "!open_check(self) || !umo_py_dlpack_wish_take(given, side_device(self), &wish)) {",
    *TESTS,
)
# test_an_interface_that_changes_while_it_is_read_is_taken_as_it_was
mutant(
    "Python: an interface that changes is read on",
    CORE + "wrap.c",
    "PyObject *own = PyDict_Copy(interface);",
    "PyObject *own = Py_NewRef(interface);",
    *TESTS,
)
# test_an_interface_is_believed_and_not_the_dtype_beside_it
mutant(
    "Python: a dtype of another size is believed",
    CORE + "wrap.c",
    "return type != NULL && strtol(typestr + 2, NULL, 10) == type->dl.bits / 8 ? type : NULL;",
    "return type;",
    *TESTS,
)
# test_a_capsule_is_consumed_before_its_deleter_can_run
mutant_of(
    "Python: a capsule is marked when it is gone",
    [
        (
            CORE + "wrap.c",
            'if (PyCapsule_SetName(capsule, managed != NULL ? "used_dltensor_versioned" : "used_dltensor") != 0) { '
            "return NULL; }",
            "",
        ),
        (
            CORE + "wrap.c",
            "return imported(&tensor, to, NULL, read_only);",
            '(void)PyCapsule_SetName(capsule, managed != NULL ? "used_dltensor_versioned" : "used_dltensor"); '
            "return imported(&tensor, to, NULL, read_only);",
        ),
    ],
    *TESTS,
)
# test_a_cycle_through_a_view_is_collected
mutant(
    "Python: the collector does not see what a view holds",
    CORE + "view.c",
    "Py_VISIT(((view_object *)object)->tensor);",
    "(void)visit;",
    *TESTS,
)
# test_a_block_is_not_left_before_it_is_entered
mutant(
    "Python: a block is left while it is being entered",
    CORE + "view.c",
    "self->state = VIEW_OPENING;",
    "self->state = VIEW_OPEN;",
    *TESTS,
)
# test_an_address_asked_for_by_many_is_one_export
mutant(
    "Python: two threads that ask for an address export twice",
    CORE + "tensor.c",
    "if (self->exported) { /* by another thread meanwhile: one is enough */",
    "if (false) {",
    *TESTS,
)
# test_an_array_of_what_cannot_be_shown_says_why
mutant(
    "Python: NumPy is asked for an array of what refuses it",
    CORE + "array.c",
    "PyObject *shown = PyMemoryView_FromObject(object);",
    "PyObject *shown = Py_NewRef(object);",
    *TESTS,
)
