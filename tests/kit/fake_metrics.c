/*
 * The fake server's metrics. As the real one, it holds series by their labels and not by who made
 * them, but counts their users in each family object apart: two objects of one family would take
 * each other's series away. So a second object of a family that lives breaks a rule here.
 */
#include "fake_server.h"

#include "allocations.h"
#include "fake_books.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define ALIVE 0x4D455452u
#define LABELS_BYTES 256u
#define LABEL_BYTES 96u
#define NAME_BYTES 64u

struct TRITONSERVER_Parameter {
    uint32_t alive;
    char text[LABEL_BYTES]; /* name=value */
};

/* What is shown: shared by all metrics with the same labels. */
typedef struct cell {
    struct cell *next;
    char labels[LABELS_BYTES]; /* name=value,... */
    double value;
    unsigned users;
} cell;

struct TRITONSERVER_MetricFamily {
    uint32_t alive;
    TRITONSERVER_MetricKind kind;
    char name[NAME_BYTES];
    unsigned metrics;
    cell *cells;
    struct TRITONSERVER_MetricFamily *next;
};

struct TRITONSERVER_Metric {
    uint32_t alive;
    TRITONSERVER_MetricFamily *family;
    cell *cell;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static TRITONSERVER_MetricFamily *families;
static unsigned parameters;

void fake_metrics_expect_clean(void)
{
    assert_int_equal(parameters, 0);
    assert_null(families);
}

double fake_metric(const char *family, const char *label)
{
    double sum = -1;
    (void)pthread_mutex_lock(&lock);
    for (const TRITONSERVER_MetricFamily *f = families; f != NULL; f = f->next) {
        for (const cell *c = f->cells; c != NULL && strcmp(f->name, family) == 0; c = c->next) {
            if (label == NULL || strstr(c->labels, label) != NULL) {
                sum = (sum < 0 ? 0 : sum) + c->value;
            }
        }
    }
    (void)pthread_mutex_unlock(&lock);
    return sum;
}

unsigned fake_metrics_print(char *text, size_t text_bytes)
{
    unsigned series = 0;
    size_t used = 0;
    text[0] = '\0';
    (void)pthread_mutex_lock(&lock);
    for (const TRITONSERVER_MetricFamily *f = families; f != NULL; f = f->next) {
        for (const cell *c = f->cells; c != NULL; c = c->next) {
            series++;
            int more = snprintf(text + used, text_bytes - used, "%s{%s} %.0f\n", f->name, c->labels,
                                c->value);
            used += more > 0 && (size_t)more < text_bytes - used ? (size_t)more : 0;
        }
    }
    (void)pthread_mutex_unlock(&lock);
    return series;
}

TRITONSERVER_Parameter *TRITONSERVER_ParameterNew(const char *name, TRITONSERVER_ParameterType type,
                                                  const void *value)
{
    if (fake_fails(__func__)) {
        return NULL;
    }
    if (name == NULL || value == NULL || type != TRITONSERVER_PARAMETER_STRING) {
        fake_violation("a label that is no string, or without a name or value");
        abort();
    }
    TRITONSERVER_Parameter *parameter = plain_alloc(sizeof *parameter);
    parameter->alive = ALIVE;
    (void)snprintf(parameter->text, sizeof parameter->text, "%s=%s", name, (const char *)value);
    (void)pthread_mutex_lock(&lock);
    parameters++;
    (void)pthread_mutex_unlock(&lock);
    return parameter;
}

void TRITONSERVER_ParameterDelete(TRITONSERVER_Parameter *parameter)
{
    if (parameter == NULL) {
        return;
    }
    if (parameter->alive != ALIVE) {
        fake_violation("a parameter is deleted twice");
        abort();
    }
    parameter->alive = 0;
    (void)pthread_mutex_lock(&lock);
    parameters--;
    (void)pthread_mutex_unlock(&lock);
    free(parameter);
}

TRITONSERVER_Error *TRITONSERVER_MetricFamilyNew(TRITONSERVER_MetricFamily **family,
                                                 TRITONSERVER_MetricKind kind, const char *name,
                                                 const char *description)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed != NULL) {
        return failed;
    }
    if (description == NULL || description[0] == '\0') {
        fake_violation("the family %s says nothing of itself", name);
    }
    TRITONSERVER_MetricFamily *made = plain_alloc(sizeof *made);
    *made = (struct TRITONSERVER_MetricFamily){.alive = ALIVE, .kind = kind};
    (void)snprintf(made->name, sizeof made->name, "%s", name);
    (void)pthread_mutex_lock(&lock);
    bool twice = false;
    for (const TRITONSERVER_MetricFamily *f = families; f != NULL; f = f->next) {
        twice = twice || strcmp(f->name, name) == 0;
    }
    made->next = families;
    families = made;
    (void)pthread_mutex_unlock(&lock);
    if (twice) {
        fake_violation("the family %s has two objects", name);
    }
    *family = made;
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_MetricFamilyDelete(TRITONSERVER_MetricFamily *family)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (family->alive != ALIVE || family->metrics != 0) {
        fake_violation("a family is deleted twice or before its metrics");
        return failed;
    }
    (void)pthread_mutex_lock(&lock);
    TRITONSERVER_MetricFamily **at = &families;
    while (*at != family) {
        at = &(*at)->next;
    }
    *at = family->next;
    (void)pthread_mutex_unlock(&lock);
    family->alive = 0;
    free(family);
    return failed;
}

/* The cell with these labels, made if there is none. Under the lock. */
static cell *cell_hold(TRITONSERVER_MetricFamily *family, const char *labels)
{
    cell *found = family->cells;
    while (found != NULL && strcmp(found->labels, labels) != 0) {
        found = found->next;
    }
    if (found == NULL) {
        found = plain_alloc(sizeof *found);
        *found = (cell){.next = family->cells};
        (void)snprintf(found->labels, sizeof found->labels, "%s", labels);
        family->cells = found;
    }
    found->users++;
    return found;
}

TRITONSERVER_Error *TRITONSERVER_MetricNew(TRITONSERVER_Metric **metric,
                                           TRITONSERVER_MetricFamily *family,
                                           const TRITONSERVER_Parameter **labels,
                                           uint64_t label_count)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    char text[LABELS_BYTES] = "";
    for (uint64_t i = 0; i < label_count; i++) {
        if (labels[i] == NULL || labels[i]->alive != ALIVE) {
            fake_violation("a metric is made with a label that does not live");
            return failed;
        }
        strncat(text, i > 0 ? "," : "", sizeof text - strlen(text) - 1);
        strncat(text, labels[i]->text, sizeof text - strlen(text) - 1);
    }
    if (failed == NULL) {
        *metric = plain_alloc(sizeof **metric);
        (void)pthread_mutex_lock(&lock);
        **metric = (struct TRITONSERVER_Metric){
            .alive = ALIVE, .family = family, .cell = cell_hold(family, text)};
        family->metrics++;
        (void)pthread_mutex_unlock(&lock);
    }
    return failed;
}

TRITONSERVER_Error *TRITONSERVER_MetricDelete(TRITONSERVER_Metric *metric)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (metric->alive != ALIVE) {
        fake_violation("a metric is deleted twice");
        return failed;
    }
    metric->alive = 0;
    (void)pthread_mutex_lock(&lock);
    TRITONSERVER_MetricFamily *family = metric->family;
    family->metrics--;
    if (--metric->cell->users == 0) {
        cell **at = &family->cells;
        while (*at != metric->cell) {
            at = &(*at)->next;
        }
        *at = metric->cell->next;
        free(metric->cell);
    }
    (void)pthread_mutex_unlock(&lock);
    free(metric);
    return failed;
}

TRITONSERVER_Error *TRITONSERVER_MetricIncrement(TRITONSERVER_Metric *metric, double value)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        if (value < 0 && metric->family->kind == TRITONSERVER_METRIC_KIND_COUNTER) {
            fake_violation("a counter falls");
        }
        (void)pthread_mutex_lock(&lock);
        metric->cell->value += value;
        (void)pthread_mutex_unlock(&lock);
    }
    return failed;
}

TRITONSERVER_Error *TRITONSERVER_MetricSet(TRITONSERVER_Metric *metric, double value)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (metric->family->kind != TRITONSERVER_METRIC_KIND_GAUGE) {
        fake_violation("a counter is set");
    }
    if (failed == NULL) {
        (void)pthread_mutex_lock(&lock);
        metric->cell->value = value;
        (void)pthread_mutex_unlock(&lock);
    }
    return failed;
}
