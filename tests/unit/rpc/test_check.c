#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hone/v1/ingest.pb-c.h"
#include "hone/v1/tasks.pb-c.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/rpc/rpc.h"

static const ProtobufCMessageDescriptor *const list = &hone__v1__list_response__descriptor;
static const ProtobufCMessageDescriptor *const watch = &hone__v1__watch_request__descriptor;
static const ProtobufCMessageDescriptor *const submit = &hone__v1__submit_request__descriptor;

#define CHECK(type, bytes, err) rpc_check_message(type, bytes, sizeof(bytes) - 1, 32, err)

static void assert_refused(const ProtobufCMessageDescriptor *type, const void *data, size_t bytes,
                           int code, const char *words)
{
    struct err err = {0};
    assert_int_equal(rpc_check_message(type, data, bytes, 32, &err), -code);
    if (!strstr(err.message, words))
        fail_msg("'%s' does not say '%s'", err.message, words);
}
#define REFUSED(type, bytes, code, words)                                                          \
    assert_refused(type, bytes, sizeof(bytes) - 1, code, words)

static void what_protobuf_packs_passes(void **state)
{
    (void)state;
    Hone__V1__LayerChoice choice = HONE__V1__LAYER_CHOICE__INIT;
    choice.layer = (char *)"conv1";
    choice.precision = (char *)"int8";
    Hone__V1__LayerChoice *choices[] = {&choice, &choice};
    double mean[] = {0.5, 0.25, 0.125};
    Hone__V1__Preprocess preprocess = HONE__V1__PREPROCESS__INIT;
    preprocess.n_mean = 3;
    preprocess.mean = mean;
    Hone__V1__JobState job = HONE__V1__JOB_STATE__INIT;
    job.preprocess = &preprocess;
    Hone__V1__BuildTask task = HONE__V1__BUILD_TASK__INIT;
    task.state = &job;
    task.n_layers = 2;
    task.layers = choices;
    task.predicted_us = 1.5;
    void *data = NULL;
    size_t bytes = 0;
    struct err err = {0};
    assert_int_equal(rpc_pack(&task.base, &data, &bytes, &err), 0);
    _cleanup_(rpc_message_freep) ProtobufCMessage *again = NULL;
    assert_int_equal(rpc_unpack(task.base.descriptor, data, bytes, &again, &err), 0);
    const Hone__V1__BuildTask *got = (const Hone__V1__BuildTask *)again;
    assert_int_equal(got->n_layers, 2);
    assert_string_equal(got->layers[1]->precision, "int8");
    assert_true(got->state->preprocess->mean[2] == 0.125);
    free(data);
}

static void an_empty_message_passes(void **state)
{
    (void)state;
    assert_int_equal(rpc_check_message(watch, NULL, 0, 32, NULL), 0);
}

static void every_cut_of_a_message_ends_in_an_error_or_a_message(void **state)
{
    (void)state;
    Hone__V1__JobSpec spec = HONE__V1__JOB_SPEC__INIT;
    spec.model_path = (char *)"/models/a.onnx";
    spec.max_drop = 1.0;
    spec.threads = 300;
    Hone__V1__SubmitRequest request = HONE__V1__SUBMIT_REQUEST__INIT;
    request.spec = &spec;
    request.job_id = (char *)"J1";
    void *data = NULL;
    size_t bytes = 0;
    assert_int_equal(rpc_pack(&request.base, &data, &bytes, NULL), 0);
    for (size_t n = 0; n < bytes; n++) {
        void *exact = malloc(n ? n : 1); /* so that a read behind the end is seen */
        memcpy(exact, data, n);
        ProtobufCMessage *message = NULL;
        if (rpc_unpack(submit, exact, n, &message, NULL) == 0)
            protobuf_c_message_free_unpacked(message, NULL);
        free(exact);
    }
    free(data);
}

static void a_length_behind_the_end_is_refused_with_the_byte(void **state)
{
    (void)state;
    REFUSED(watch,
            "\x0a\x05"
            "ab",
            ERR_INVALID_ARGUMENT, "byte 0: field is cut off");
    REFUSED(watch,
            "\x18\x01\x0a\xff\xff\xff\xff\x0f"
            "ab",
            ERR_INVALID_ARGUMENT, "byte 2");
}

static void a_number_of_more_than_ten_bytes_is_refused(void **state)
{
    (void)state;
    REFUSED(watch, "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ERR_INVALID_ARGUMENT,
            "cut off");
}

static void field_number_zero_and_groups_are_refused(void **state)
{
    (void)state;
    REFUSED(watch, "\x00\x01", ERR_INVALID_ARGUMENT, "field number");
    REFUSED(watch, "\x0b\x0c", ERR_INVALID_ARGUMENT, "kind of field");
    REFUSED(watch, "\x0e", ERR_INVALID_ARGUMENT, "kind of field");
}

static void a_field_of_the_wrong_wire_type_is_refused_by_name(void **state)
{
    (void)state;
    REFUSED(watch, "\x08\x01", ERR_INVALID_ARGUMENT, "job_id");
    REFUSED(watch, "\x1a\x01z", ERR_INVALID_ARGUMENT, "wait_ms");
}

static void text_with_a_zero_byte_is_refused(void **state)
{
    (void)state;
    REFUSED(watch,
            "\x0a\x03"
            "a\0b",
            ERR_INVALID_ARGUMENT, "zero byte");
}

static void unknown_fields_pass(void **state)
{
    (void)state;
    assert_int_equal(CHECK(watch,
                           "\xf2\x01\x03"
                           "abc"
                           "\x18\x07",
                           NULL),
                     0);
}

static void a_packed_array_that_is_cut_is_refused(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *type = &hone__v1__preprocess__descriptor;
    assert_int_equal(CHECK(type,
                           "\x12\x08"
                           "abcdefgh",
                           NULL),
                     0);
    REFUSED(type,
            "\x12\x07"
            "abcdefg",
            ERR_INVALID_ARGUMENT, "packed");
}

static void a_submessage_given_twice_is_refused_by_name(void **state)
{
    (void)state;
    REFUSED(submit, "\x0a\x00\x0a\x00", ERR_INVALID_ARGUMENT, "spec is given twice");
}

static void nesting_is_refused_at_its_limit(void **state)
{
    (void)state;
    /* SubmitRequest { JobSpec {} }: depth 2 */
    struct err err = {0};
    assert_int_equal(rpc_check_message(submit, "\x0a\x00", 2, 2, &err), 0);
    assert_int_equal(rpc_check_message(submit, "\x0a\x00", 2, 1, &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "nested deeper than 1"));
}

static void many_small_elements_are_refused_before_they_take_memory(void **state)
{
    (void)state;
    /* Each empty JobView takes two bytes here and more than a hundred unpacked. */
    size_t n = 1000000;
    char *data = malloc(2 * n);
    for (size_t i = 0; i < n; i++)
        memcpy(data + 2 * i, "\x0a\x00", 2);
    assert_refused(list, data, 2 * n, ERR_RESOURCE_EXHAUSTED, "when unpacked");
    assert_int_equal(rpc_check_message(list, data, 2000, 32, NULL), 0);
    free(data);
}

static void many_unknown_fields_are_refused_before_they_take_memory(void **state)
{
    (void)state;
    size_t n = 2000000;
    char *data = malloc(2 * n);
    for (size_t i = 0; i < n; i++)
        memcpy(data + 2 * i, "\x78\x00", 2);
    assert_refused(list, data, 2 * n, ERR_RESOURCE_EXHAUSTED, "when unpacked");
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_protobuf_packs_passes),
        cmocka_unit_test(an_empty_message_passes),
        cmocka_unit_test(every_cut_of_a_message_ends_in_an_error_or_a_message),
        cmocka_unit_test(a_length_behind_the_end_is_refused_with_the_byte),
        cmocka_unit_test(a_number_of_more_than_ten_bytes_is_refused),
        cmocka_unit_test(field_number_zero_and_groups_are_refused),
        cmocka_unit_test(a_field_of_the_wrong_wire_type_is_refused_by_name),
        cmocka_unit_test(text_with_a_zero_byte_is_refused),
        cmocka_unit_test(unknown_fields_pass),
        cmocka_unit_test(a_packed_array_that_is_cut_is_refused),
        cmocka_unit_test(a_submessage_given_twice_is_refused_by_name),
        cmocka_unit_test(nesting_is_refused_at_its_limit),
        cmocka_unit_test(many_small_elements_are_refused_before_they_take_memory),
        cmocka_unit_test(many_unknown_fields_are_refused_before_they_take_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
