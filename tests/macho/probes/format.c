/* Every way in which variadic arguments are passed; the expected text is in test_probes.py. */
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int print_list(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int count = vprintf(format, list);
    va_end(list);
    return count;
}

static long sum(int count, ...)
{
    va_list list;
    long total = 0;
    va_start(list, count);
    for (int i = 0; i < count; i++) {
        total += i % 2 == 0 ? va_arg(list, int) : (long)va_arg(list, double);
    }
    va_end(list);
    return total;
}

int main(void)
{
    char text[128];
    char *made = NULL;
    int a = 0;
    long long b = 0;
    double d = 0;
    long double e = 0;
    float f = 0;
    char word[16] = "";
    unsigned char small = 0;
    size_t size = 0;

    printf("%d %u %x %o %c %s %%\n", -1, 4000000000u, 0xbeefu, 8u, 'q', "text");
    printf("%hhd %hd %ld %lld %zu %jd %td %qd\n", (signed char)-3, (short)-300, -5L, 1LL << 60,
           (size_t)77, (intmax_t)-9, (ptrdiff_t)4, 1LL << 40);
    printf("%f %.3e %g %a\n", 1.5, 12345.678, 0.0001, 1.0);
    printf("%Lf %.2Lg\n", (long double)2.25, (long double)0.5);
    printf("%5d|%-5d|%05d|%+d|%*d|%-*d|%.*f\n", 42, 42, 42, 42, 6, 42, 6, 42, 2, 3.14159);
    printf("%d %f %d %f %d %f %d %f %d %f %d %f\n", 1, 2.0, 3, 4.0, 5, 6.0, 7, 8.0, 9, 10.0, 11,
           12.0);
    printf("%s %s %s %s %s %s %s %s %s\n", "a", "b", "c", "d", "e", "f", "g", "h", "i");
    printf("%2$s %1$s\n", "second", "first");
    printf("%p %p\n", NULL, (void *)(uintptr_t)0x1234);
    printf("%" PRIu64 " %" PRIx32 " %" PRId8 "\n", UINT64_MAX, UINT32_C(0xabc), INT8_C(-8));
    printf("%.3s|%8s|%-8s|\n", "abcdef", "right", "left");
    printf("list %d\n", print_list("%s %d %.1f %lld\n", "in a list", 7, 2.5, -1LL) - 22);
    printf("sum %ld\n", sum(12, 1, 2.0, 3, 4.0, 5, 6.0, 7, 8.0, 9, 10.0, 11, 12.0));
    fprintf(stdout, "%s %d\n", "fprintf", 1);
    (void)fflush(stdout);
    dprintf(STDOUT_FILENO, "%s %d\n", "dprintf", 2);
    (void)sprintf(text, "%s %d", "sprintf", 3);
    puts(text);
    int wanted = snprintf(text, 8, "%s %d", "snprintf", 4);
    printf("%s %d\n", text, wanted);
    (void)asprintf(&made, "%s %d %.1f", "asprintf", 5, 0.5);
    puts(made);
    free(made);
    int found = sscanf("12 -7000000000 0.5 0.25 1.5 word 200 99",
                       "%d %lld %lf %Lf %f %15s %hhu %zu", &a, &b, &d, &e, &f, word, &small, &size);
    printf("%d: %d %lld %g %Lg %g %s %d %zu\n", found, a, b, d, e, (double)f, word, small, size);
    return 0;
}
