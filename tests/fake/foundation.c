/* The classes of Foundation that Metal's callers meet. All are immutable, so copying one retains
 * it. */
#include "fake.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct string {
    fake_object object;
    char *text;
} string;

typedef struct error {
    fake_object object;
    id domain;
    int64_t code;
    id text;
} error;

typedef struct array {
    fake_object object;
    id *items;
    size_t count;
} array;

typedef struct url {
    fake_object object;
    id path;
} url;

static id keep(id self, SEL selector)
{
    (void)selector;
    return objc_retain(self);
}

/* ---- NSString ---- */

id fake_string_new(const char *text)
{
    string *made = fake_make(&fake_class_string);
    made->text = strdup(text);
    if (made->text == NULL) {
        abort();
    }
    return made;
}

id fake_string(const char *text)
{
    return objc_autorelease(fake_string_new(text));
}

const char *fake_text(id object)
{
    const string *self = object;
    if (!fake_is(object, &fake_class_string)) {
        fake_violate("wrong_class", "a %s is given as an NSString", fake_class_name(object));
        return "";
    }
    return self->text == NULL ? "" : self->text;
}

static bool text_is_utf8(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    while (*at != 0) {
        int more = *at < 0x80   ? 0
                   : *at < 0xc2 ? -1
                   : *at < 0xe0 ? 1
                   : *at < 0xf0 ? 2
                   : *at < 0xf5 ? 3
                                : -1;
        if (more < 0) {
            return false;
        }
        for (at++; more > 0; more--, at++) {
            if ((*at & 0xc0) != 0x80) {
                return false;
            }
        }
    }
    return true;
}

static id string_make(id self, SEL selector, const char *text)
{
    (void)self;
    if (text == NULL) {
        fake_violate("nil_argument", "+[NSString %s] of NULL", selector);
        return NULL;
    }
    if (fake_fails(selector) || !text_is_utf8(text)) {
        return NULL;
    }
    return fake_string(text);
}

static id string_make_encoded(id self, SEL selector, const char *text, ns_uint encoding)
{
    (void)encoding;
    return string_make(self, selector, text);
}

static id string_make_empty(id self, SEL selector)
{
    return string_make(self, selector, "");
}

static id string_make_from(id self, SEL selector, id other)
{
    return string_make(self, selector, fake_text(other));
}

static id string_init(string *self, SEL selector, const char *text, ns_uint encoding)
{
    (void)encoding;
    if (text == NULL) {
        fake_violate("nil_argument", "%s of NULL", selector);
        objc_release(self);
        return NULL;
    }
    self->text = strdup(text);
    if (self->text == NULL) {
        abort();
    }
    return self;
}

static id string_init_from(string *self, SEL selector, id other)
{
    return string_init(self, selector, fake_text(other), 0);
}

static id string_self(id self, SEL selector)
{
    (void)selector;
    return self;
}

static const char *string_text(string *self, SEL selector)
{
    (void)selector;
    return self->text == NULL ? "" : self->text;
}

static const char *string_text_encoded(string *self, SEL selector, ns_uint encoding)
{
    (void)encoding;
    return string_text(self, selector);
}

/* Of ASCII. */
static ns_uint string_length(string *self, SEL selector)
{
    return strlen(string_text(self, selector));
}

static ns_uint string_length_encoded(string *self, SEL selector, ns_uint encoding)
{
    (void)encoding;
    return string_length(self, selector);
}

static uint16_t string_character(string *self, SEL selector, ns_uint index)
{
    if (index >= string_length(self, selector)) {
        fake_violate("index_range", "a character beyond the string's end");
        return 0;
    }
    return (unsigned char)self->text[index];
}

static bool string_equal(string *self, SEL selector, id other)
{
    return fake_is(other, &fake_class_string) &&
           strcmp(string_text(self, selector), fake_text(other)) == 0;
}

static ns_uint string_hash(string *self, SEL selector)
{
    const char *text = string_text(self, selector);
    return fake_hash(text, strlen(text), 0);
}

static id string_appended(string *self, SEL selector, id other)
{
    const char *one = string_text(self, selector);
    const char *two = fake_text(other);
    char *joined = malloc(strlen(one) + strlen(two) + 1);
    if (joined == NULL) {
        abort();
    }
    (void)strcpy(joined, one);
    (void)strcat(joined, two);
    id made = fake_string(joined);
    free(joined);
    return made;
}

static bool string_dealloc(void *self)
{
    free(((string *)self)->text);
    return true;
}

static const fake_method string_methods[] = {
    FAKE_METHOD("UTF8String", "r*@:", string_text),
    FAKE_METHOD("cStringUsingEncoding:", "r*@:Q", string_text_encoded),
    FAKE_METHOD("length", "Q@:", string_length),
    FAKE_METHOD("lengthOfBytesUsingEncoding:", "Q@:Q", string_length_encoded),
    FAKE_METHOD("characterAtIndex:", "S@:Q", string_character),
    FAKE_METHOD("isEqualToString:", "B@:@", string_equal),
    FAKE_METHOD("isEqual:", "B@:@", string_equal),
    FAKE_METHOD("hash", "Q@:", string_hash),
    FAKE_METHOD("description", "@@:", string_self),
    FAKE_METHOD("stringByAppendingString:", "@@:@", string_appended),
    FAKE_METHOD("initWithCString:encoding:", "@@:r*Q", string_init),
    FAKE_METHOD("initWithString:", "@@:@", string_init_from),
    FAKE_METHOD("copy", "@@:", keep),
};

static const fake_method string_class_methods[] = {
    FAKE_METHOD("stringWithUTF8String:", "@@:r*", string_make),
    FAKE_METHOD("stringWithCString:encoding:", "@@:r*Q", string_make_encoded),
    FAKE_METHOD("stringWithString:", "@@:@", string_make_from),
    FAKE_METHOD("string", "@@:", string_make_empty),
};

fake_class fake_class_string = {.super = &fake_class_object,
                                .name = "NSString",
                                .size_bytes = sizeof(string),
                                .dealloc = string_dealloc,
                                .methods = string_methods,
                                .method_count = FAKE_COUNT(string_methods),
                                .class_methods = string_class_methods,
                                .class_method_count = FAKE_COUNT(string_class_methods),
                                .makes = true};

/* ---- NSError ---- */

id fake_error(const char *domain, int64_t code, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    error *made = fake_make(&fake_class_error);
    made->domain = fake_string_new(domain);
    made->code = code;
    made->text = fake_string_new(text);
    return made;
}

void fake_error_give(id *out, id given)
{
    if (out != NULL) {
        *out = objc_autorelease(given);
    } else {
        objc_release(given);
    }
}

static id error_make(id self, SEL selector, id domain, int64_t code, id info)
{
    (void)self;
    (void)selector;
    (void)info;
    return objc_autorelease(fake_error(fake_text(domain), code, "%s", fake_text(domain)));
}

static int64_t error_code(error *self, SEL selector)
{
    (void)selector;
    return self->code;
}

static id error_domain(error *self, SEL selector)
{
    (void)selector;
    return self->domain;
}

static id error_text(error *self, SEL selector)
{
    (void)selector;
    return self->text;
}

static id error_nothing(error *self, SEL selector)
{
    (void)self;
    (void)selector;
    return NULL;
}

static bool error_dealloc(void *object)
{
    error *self = object;
    objc_release(self->domain);
    objc_release(self->text);
    return true;
}

static const fake_method error_methods[] = {
    FAKE_METHOD("code", "q@:", error_code),
    FAKE_METHOD("domain", "@@:", error_domain),
    FAKE_METHOD("localizedDescription", "@@:", error_text),
    FAKE_METHOD("localizedFailureReason", "@@:", error_nothing),
    FAKE_METHOD("localizedRecoverySuggestion", "@@:", error_nothing),
    FAKE_METHOD("userInfo", "@@:", error_nothing),
    FAKE_METHOD("description", "@@:", error_text),
    FAKE_METHOD("copy", "@@:", keep),
};

static const fake_method error_class_methods[] = {
    FAKE_METHOD("errorWithDomain:code:userInfo:", "@@:@q@", error_make),
};

fake_class fake_class_error = {.super = &fake_class_object,
                               .name = "NSError",
                               .size_bytes = sizeof(error),
                               .dealloc = error_dealloc,
                               .methods = error_methods,
                               .method_count = FAKE_COUNT(error_methods),
                               .class_methods = error_class_methods,
                               .class_method_count = FAKE_COUNT(error_class_methods)};

/* ---- NSArray ---- */

static void array_fill(array *self, id const *items, size_t count)
{
    self->items = calloc(count + 1, sizeof *self->items);
    if (self->items == NULL) {
        abort();
    }
    for (size_t i = 0; i < count; i++) {
        self->items[i] = objc_retain(items[i]);
    }
    self->count = count;
}

id fake_array_new(id const *items, size_t count)
{
    array *made = fake_make(&fake_class_array);
    array_fill(made, items, count);
    return made;
}

static bool array_valid(id object)
{
    if (!fake_is(object, &fake_class_array)) {
        fake_violate("wrong_class", "a %s is given as an NSArray", fake_class_name(object));
        return false;
    }
    return true;
}

ns_uint fake_array_count(id object)
{
    return array_valid(object) ? ((array *)object)->count : 0;
}

id fake_array_at(id object, ns_uint index)
{
    return ((array *)object)->items[index];
}

static id array_make(id self, SEL selector, id item)
{
    (void)self;
    if (item == NULL) {
        fake_violate("nil_argument", "+[NSArray %s] of nil", selector);
        return NULL;
    }
    return objc_autorelease(fake_array_new(&item, 1));
}

static bool items_valid(SEL selector, id const *items, ns_uint count)
{
    for (ns_uint i = 0; i < count; i++) {
        if (items[i] == NULL) {
            fake_violate("nil_argument", "%s with a nil", selector);
            return false;
        }
    }
    return true;
}

static id array_make_many(id self, SEL selector, id const *items, ns_uint count)
{
    (void)self;
    return items_valid(selector, items, count) ? objc_autorelease(fake_array_new(items, count))
                                               : NULL;
}

static id array_make_empty(id self, SEL selector)
{
    return array_make_many(self, selector, NULL, 0);
}

static id array_init(array *self, SEL selector, id const *items, ns_uint count)
{
    if (!items_valid(selector, items, count)) {
        objc_release(self);
        return NULL;
    }
    array_fill(self, items, count);
    return self;
}

static ns_uint array_count(array *self, SEL selector)
{
    (void)selector;
    return self->count;
}

static id array_at(array *self, SEL selector, ns_uint index)
{
    (void)selector;
    if (index >= self->count) {
        fake_violate("index_range", "item %llu of an array of %zu", (unsigned long long)index,
                     self->count);
        return NULL;
    }
    return self->items[index];
}

static bool array_dealloc(void *object)
{
    array *self = object;
    for (size_t i = 0; i < self->count; i++) {
        objc_release(self->items[i]);
    }
    free(self->items);
    return true;
}

static const fake_method array_methods[] = {
    FAKE_METHOD("count", "Q@:", array_count),
    FAKE_METHOD("objectAtIndex:", "@@:Q", array_at),
    FAKE_METHOD("initWithObjects:count:", "@@:r^@Q", array_init),
    FAKE_METHOD("copy", "@@:", keep),
};

static const fake_method array_class_methods[] = {
    FAKE_METHOD("array", "@@:", array_make_empty),
    FAKE_METHOD("arrayWithObject:", "@@:@", array_make),
    FAKE_METHOD("arrayWithObjects:count:", "@@:r^@Q", array_make_many),
};

fake_class fake_class_array = {.super = &fake_class_object,
                               .name = "NSArray",
                               .size_bytes = sizeof(array),
                               .dealloc = array_dealloc,
                               .methods = array_methods,
                               .method_count = FAKE_COUNT(array_methods),
                               .class_methods = array_class_methods,
                               .class_method_count = FAKE_COUNT(array_class_methods),
                               .makes = true};

/* ---- NSURL ---- */

static id url_init(url *self, SEL selector, id path)
{
    if (!fake_is(path, &fake_class_string)) {
        fake_violate("nil_argument", "%s of a %s", selector, fake_class_name(path));
        objc_release(self);
        return NULL;
    }
    self->path = objc_retain(path);
    return self;
}

static id url_make(id self, SEL selector, id path)
{
    (void)self;
    return objc_autorelease(url_init(fake_make(&fake_class_url), selector, path));
}

const char *fake_url_path(id object)
{
    if (!fake_is(object, &fake_class_url)) {
        fake_violate("wrong_class", "a %s is given as an NSURL", fake_class_name(object));
        return NULL;
    }
    return fake_text(((url *)object)->path);
}

static const char *url_path(id self, SEL selector)
{
    (void)selector;
    return fake_url_path(self);
}

static bool url_dealloc(void *self)
{
    objc_release(((url *)self)->path);
    return true;
}

static const fake_method url_methods[] = {
    FAKE_METHOD("initFileURLWithPath:", "@@:@", url_init),
    FAKE_METHOD("fileSystemRepresentation", "r*@:", url_path),
    FAKE_METHOD("copy", "@@:", keep),
};

static const fake_method url_class_methods[] = {
    FAKE_METHOD("fileURLWithPath:", "@@:@", url_make),
};

fake_class fake_class_url = {.super = &fake_class_object,
                             .name = "NSURL",
                             .size_bytes = sizeof(url),
                             .dealloc = url_dealloc,
                             .methods = url_methods,
                             .method_count = FAKE_COUNT(url_methods),
                             .class_methods = url_class_methods,
                             .class_method_count = FAKE_COUNT(url_class_methods),
                             .makes = true};
