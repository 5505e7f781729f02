/*
 * Element types: umo's numbers, NumPy's names, the letters of the buffer protocol and DLPack's
 * codes in one table.
 */
#include "core.h"

#include <string.h>

/* NumPy takes "q" for a type of its own beside int64 where a long has 64 bits. */
#define INT64_FORMAT (sizeof(long) == 8 ? "l" : "q")
#define UINT64_FORMAT (sizeof(long) == 8 ? "L" : "Q")

/* NumPy's byte order mark. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ORDER "<"
#define FOREIGN_ORDER '>'
#else
#define ORDER ">"
#define FOREIGN_ORDER '<'
#endif

static const umo_py_dtype types[] = {
    {UMO_BOOL, "bool", "?", "|b1", {UMO_DL_BOOL, 8, 1}},
    {UMO_UINT8, "uint8", "B", "|u1", {UMO_DL_UINT, 8, 1}},
    {UMO_UINT16, "uint16", "H", ORDER "u2", {UMO_DL_UINT, 16, 1}},
    {UMO_UINT32, "uint32", "I", ORDER "u4", {UMO_DL_UINT, 32, 1}},
    {UMO_UINT64, "uint64", UINT64_FORMAT, ORDER "u8", {UMO_DL_UINT, 64, 1}},
    {UMO_INT8, "int8", "b", "|i1", {UMO_DL_INT, 8, 1}},
    {UMO_INT16, "int16", "h", ORDER "i2", {UMO_DL_INT, 16, 1}},
    {UMO_INT32, "int32", "i", ORDER "i4", {UMO_DL_INT, 32, 1}},
    {UMO_INT64, "int64", INT64_FORMAT, ORDER "i8", {UMO_DL_INT, 64, 1}},
    {UMO_FP16, "float16", "e", ORDER "f2", {UMO_DL_FLOAT, 16, 1}},
    {UMO_FP32, "float32", "f", ORDER "f4", {UMO_DL_FLOAT, 32, 1}},
    {UMO_FP64, "float64", "d", ORDER "f8", {UMO_DL_FLOAT, 64, 1}},
    {UMO_BF16, "bfloat16", NULL, NULL, {UMO_DL_BFLOAT, 16, 1}},
};

#define TYPES (sizeof types / sizeof types[0])

const umo_py_dtype *umo_py_dtype_of(umo_dtype dtype)
{
    for (size_t i = 0; i < TYPES; i++) {
        if (types[i].dtype == dtype) {
            return &types[i];
        }
    }
    return NULL;
}

static umo_dtype name_parse(PyObject *name)
{
    for (size_t i = 0; i < TYPES; i++) {
        if (PyUnicode_CompareWithASCIIString(name, types[i].name) == 0) {
            return types[i].dtype;
        }
    }
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(name, &length);
    if (text == NULL || strlen(text) != (size_t)length) {
        (void)umo_py_error_forget();
        return UMO_DTYPE_INVALID;
    }
    umo_dtype dtype = umo_dtype_parse(text);
    return umo_py_dtype_of(dtype) != NULL ? dtype : UMO_DTYPE_INVALID;
}

/* An attribute that is text, or NULL; only an exception that lasts is left. */
static PyObject *text_attribute(PyObject *object, const char *attribute)
{
    PyObject *value = PyObject_GetAttrString(object, attribute);
    if (value == NULL) {
        (void)umo_py_error_forget();
    } else if (!PyUnicode_Check(value)) {
        Py_CLEAR(value);
    }
    return value;
}

/* "torch.float32": what comes behind the last dot. */
static PyObject *text_tail(PyObject *object)
{
    PyObject *text = PyObject_Str(object);
    PyObject *parts = text != NULL ? PyObject_CallMethod(text, "rsplit", "si", ".", 1) : NULL;
    PyObject *tail = parts != NULL ? PySequence_GetItem(parts, -1) : NULL;
    Py_XDECREF(text);
    Py_XDECREF(parts);
    if (tail == NULL) {
        (void)umo_py_error_forget();
    }
    return tail;
}

static umo_dtype object_parse(PyObject *object)
{
    if (object == (PyObject *)&PyFloat_Type) {
        return UMO_FP64;
    }
    if (object == (PyObject *)&PyLong_Type) {
        return UMO_INT64;
    }
    umo_dtype found = UMO_DTYPE_INVALID;
    for (int i = 0; i < 3 && found == UMO_DTYPE_INVALID && !PyErr_Occurred(); i++) {
        PyObject *name = i == 0   ? text_attribute(object, "name")
                         : i == 1 ? text_attribute(object, "__name__")
                                  : text_tail(object);
        found = name != NULL ? name_parse(name) : UMO_DTYPE_INVALID;
        Py_XDECREF(name);
    }
    return found;
}

/* NumPy's dtypes have the same name in either byte order. */
static bool order_is_foreign(PyObject *object)
{
    PyObject *native = PyObject_GetAttrString(object, "isnative");
    if (native == NULL) {
        (void)umo_py_error_forget();
        return false;
    }
    bool foreign = native == Py_False;
    Py_DECREF(native);
    return foreign;
}

bool umo_py_dtype_take(PyObject *argument, umo_dtype *out)
{
    if (!PyUnicode_Check(argument) && order_is_foreign(argument)) {
        PyErr_Format(umo_py_exception(UMO_E_UNSUPPORTED),
                     "dtype %R: the bytes of its elements are in the other order", argument);
        return false;
    }
    umo_dtype found = PyUnicode_Check(argument) ? name_parse(argument) : object_parse(argument);
    if (PyErr_Occurred()) {
        return false;
    }
    if (found == UMO_DTYPE_INVALID) {
        PyErr_Format(umo_py_exception(UMO_E_UNSUPPORTED),
                     "dtype %R: umo has bool, integers of 8 to 64 bits, float16, bfloat16, "
                     "float32 and float64",
                     argument);
        return false;
    }
    *out = found;
    return true;
}

const umo_py_dtype *umo_py_dtype_from_typestr(PyObject *typestr)
{
    for (size_t i = 0; i < TYPES; i++) {
        if (types[i].typestr != NULL &&
            PyUnicode_CompareWithASCIIString(typestr, types[i].typestr) == 0) {
            return &types[i];
        }
    }
    return NULL;
}

/* ---- letters ---- */

/* What a letter stands for, but not how long it is: that is the item's size, because ctypes and
 * struct do not agree about "l". */
static umo_dl_code letter_code(char letter)
{
    switch (letter) {
    case '?':
        return UMO_DL_BOOL;
    case 'b':
    case 'h':
    case 'i':
    case 'l':
    case 'q':
    case 'n':
        return UMO_DL_INT;
    case 'B':
    case 'H':
    case 'I':
    case 'L':
    case 'Q':
    case 'N':
        return UMO_DL_UINT;
    case 'e':
    case 'f':
    case 'd':
        return UMO_DL_FLOAT;
    default:
        return UMO_DL_OPAQUE;
    }
}

static const char *letter_words(const char *format)
{
    switch (format[0]) {
    case 'O':
        return "Python objects have no bytes that another language could read";
    case 'w':
    case 'u':
    case 's':
    case 'p':
        return "strings: encode them, or use a list of bytes with the Triton client";
    case 'Z':
    case 'F':
    case 'D':
        return "complex numbers: view them as pairs of floats";
    case 'T':
        return "structures: take one field";
    case 'g':
        return "long double: convert to float64";
    default:
        return "no type of umo's";
    }
}

const umo_py_dtype *umo_py_dtype_from_format(const char *format, Py_ssize_t item_bytes)
{
    const char *letter = format != NULL ? format : "B";
    if ((*letter == FOREIGN_ORDER || *letter == '!') && item_bytes > 1) {
        PyErr_Format(umo_py_exception(UMO_E_UNSUPPORTED),
                     "elements of format '%s': their bytes are in the other order; "
                     "array.astype(array.dtype.newbyteorder('=')) makes a copy",
                     format);
        return NULL;
    }
    letter += *letter != '\0' && strchr("@=<>!^", *letter) != NULL ? 1 : 0;
    const bool plain = letter[0] != '\0' && letter[1] == '\0';
    const umo_dl_code code = plain ? letter_code(letter[0]) : UMO_DL_OPAQUE;
    for (size_t i = 0; i < TYPES && code != UMO_DL_OPAQUE; i++) {
        if (types[i].dl.code == code && types[i].dl.bits == item_bytes * 8) {
            return &types[i];
        }
    }
    letter += strspn(letter, "0123456789");
    PyErr_Format(umo_py_exception(UMO_E_UNSUPPORTED), "elements of format '%s' and %zd byte(s): %s",
                 format, item_bytes, letter_words(letter));
    return NULL;
}
