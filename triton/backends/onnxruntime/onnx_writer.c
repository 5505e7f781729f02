/*
 * Protobuf by hand: a field is (number << 3 | wire type), then a varint, or a length and bytes.
 */
#include "onnx_writer.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MESSAGE_BYTES = 1 << 14,
    IR_VERSION = 8,
    OPSET = 17,
    TYPE_FLOAT = 1
};

typedef struct message {
    size_t size_bytes;
    unsigned char bytes[MESSAGE_BYTES];
} message;

static void put_bytes(message *to, const void *data, size_t size_bytes)
{
    if (size_bytes > MESSAGE_BYTES - to->size_bytes) {
        abort();
    }
    memcpy(to->bytes + to->size_bytes, data, size_bytes);
    to->size_bytes += size_bytes;
}

static void put_varint(message *to, uint64_t value)
{
    do {
        unsigned char byte = (unsigned char)(value & 0x7F);
        value >>= 7;
        byte |= value != 0 ? 0x80 : 0;
        put_bytes(to, &byte, 1);
    } while (value != 0);
}

static void put_number(message *to, unsigned field, uint64_t value)
{
    put_varint(to, (uint64_t)field << 3);
    put_varint(to, value);
}

static void put_data(message *to, unsigned field, const void *data, size_t size_bytes)
{
    put_varint(to, (uint64_t)field << 3 | 2);
    put_varint(to, size_bytes);
    put_bytes(to, data, size_bytes);
}

static void put_text(message *to, unsigned field, const char *text)
{
    put_data(to, field, text, strlen(text));
}

static void put_message(message *to, unsigned field, const message *inner)
{
    put_data(to, field, inner->bytes, inner->size_bytes);
}

static void put_tensor(message *graph, unsigned field, const onnx_tensor *tensor)
{
    message shape = {0};
    for (int i = 0; i < ONNX_RANK && tensor->dims[i] != NULL; i++) {
        message dim = {0};
        char *end;
        long value = strtol(tensor->dims[i], &end, 10);
        if (*end == '\0') {
            put_number(&dim, 1, (uint64_t)value);
        } else {
            put_text(&dim, 2, tensor->dims[i]);
        }
        put_message(&shape, 1, &dim);
    }
    message typed = {0};
    put_number(&typed, 1, (uint64_t)tensor->element);
    put_message(&typed, 2, &shape);
    message type = {0};
    put_message(&type, 1, &typed);
    message info = {0};
    put_text(&info, 1, tensor->name);
    put_message(&info, 2, &type);
    put_message(graph, field, &info);
}

static void put_entry(message *tensor, const char *key, const char *value)
{
    if (value != NULL) {
        message entry = {0};
        put_text(&entry, 1, key);
        put_text(&entry, 2, value);
        put_message(tensor, 13, &entry);
    }
}

static void put_constant(message *graph, const onnx_constant *constant)
{
    message tensor = {0};
    if (constant->columns > 0) {
        put_number(&tensor, 1, (uint64_t)(constant->count / constant->columns));
        put_number(&tensor, 1, (uint64_t)constant->columns);
    } else {
        put_number(&tensor, 1, (uint64_t)constant->count);
    }
    put_number(&tensor, 2, TYPE_FLOAT);
    put_text(&tensor, 8, constant->name);
    if (constant->location == NULL) {
        put_data(&tensor, 9, constant->values,
                 (size_t)constant->count * sizeof constant->values[0]);
    } else {
        put_entry(&tensor, "location", constant->location);
        put_entry(&tensor, "offset", constant->offset);
        put_entry(&tensor, "length", constant->length);
        put_number(&tensor, 14, 1);
    }
    put_message(graph, 5, &tensor);
}

static void put_node(message *graph, const onnx_node *node)
{
    message made = {0};
    for (int i = 0; i < 2 && node->inputs[i] != NULL; i++) {
        put_text(&made, 1, node->inputs[i]);
    }
    put_text(&made, 2, node->output);
    put_text(&made, 4, node->op);
    put_message(graph, 1, &made);
}

bool onnx_write(const onnx_model *model, const char *path)
{
    message graph = {0};
    put_text(&graph, 2, "test");
    for (int i = 0; i < ONNX_LIST; i++) {
        if (model->nodes[i].op != NULL) {
            put_node(&graph, &model->nodes[i]);
        }
        if (model->constants[i].name != NULL) {
            put_constant(&graph, &model->constants[i]);
        }
        if (model->inputs[i].name != NULL) {
            put_tensor(&graph, 11, &model->inputs[i]);
        }
        if (model->outputs[i].name != NULL) {
            put_tensor(&graph, 12, &model->outputs[i]);
        }
    }
    message opset = {0};
    put_text(&opset, 1, "");
    put_number(&opset, 2, OPSET);
    message whole = {0};
    put_number(&whole, 1, IR_VERSION);
    put_message(&whole, 8, &opset);
    put_message(&whole, 7, &graph);
    FILE *file = fopen(path, "wb");
    if (file == NULL) {
        return false;
    }
    bool written = fwrite(whole.bytes, 1, whole.size_bytes, file) == whole.size_bytes;
    return fclose(file) == 0 && written;
}
