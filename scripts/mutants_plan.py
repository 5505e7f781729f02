"""Mutants of the planner. The form is that of mutants.py."""

from mutants import mutant

PLAN = "plan.plan_test"
mutant(
    "planner: buffers that only touch in time are in use at once",
    "src/plan/problem.c",
    "spans[started].lower < end->time",
    "spans[started].lower <= end->time",
    PLAN,
)
mutant(
    "planner: a section's floor is never left empty",
    "src/plan/search.c",
    "if (!f->gap_tried && !s->gave_up) {",
    "if (false) {",
    PLAN,
)
mutant(
    "planner: sections beside a lower one pass for a valley",
    "src/plan/search.c",
    "open = wall;",
    "open = true;",
    PLAN,
)
mutant(
    "planner: an alignment is forgotten when a floor rises",
    "src/plan/search.c",
    "const int64_t least = item->align == 1 ? v : plan_round_up(v, item->align);",
    "const int64_t least = v;",
    PLAN,
)
mutant(
    "planner: what is glued on another lies in its place",
    "src/plan/glue.c",
    "above += g->nodes[i].size;",
    "above += 0;",
    PLAN,
)
mutant(
    "planner: a caller that has had enough is not heard",
    "src/plan/budget.c",
    "budget->interrupted = true; budget->over = true;",
    "(void)0;",
    PLAN,
)
mutant(
    "planner: the check looks below only",
    "src/plan/check.c",
    "const uint32_t above = set_near(&c->in_use, rank, true);",
    "const uint32_t above = UINT32_MAX;",
    PLAN,
)
mutant(
    "planner: two rows of one id pass",
    "src/plan/csv.c",
    "if (strcmp(sorted[i - 1].id, sorted[i].id) == 0) {",
    "if (false) {",
    "plan.csv_test",
)
