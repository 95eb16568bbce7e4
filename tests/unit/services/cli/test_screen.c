/* What watchers see, and the table of results. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>

#include "services/cli/results.h"
#include "services/cli/screen.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"

#define SECOND ((int64_t)1000000000)

struct shown {
    char *text;
    size_t bytes;
    FILE *out;
    struct screen screen;
};

static void begin(struct shown *s, enum screen_mode mode)
{
    *s = (struct shown){0};
    s->out = open_memstream(&s->text, &s->bytes);
    assert_non_null(s->out);
    s->screen = (struct screen){.mode = mode, .out = s->out, .columns = 80};
}

static void end(struct shown *s)
{
    screen_close(&s->screen);
    fclose(s->out);
}

static void assert_shown(const struct shown *s, const char *text)
{
    if (!strstr(s->text, text))
        fail_msg("'%s' is not shown, but: %s", text, s->text);
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (const char *p = text; (p = strstr(p, what)) != NULL; p++)
        n++;
    return n;
}

static void progress(struct shown *s, const char *stage, const char *task, int done, int total,
                     int time_ms)
{
    char json[400];
    snprintf(
        json, sizeof(json),
        "{\"type\":\"progress\",\"stage\":\"%s\",\"done\":%d,\"total\":%d,\"unit\":\"images\","
        "\"rate\":100,\"eta_s\":7.5,\"service\":\"trainer\",\"kind\":\"score\",\"task\":\"%s\","
        "\"time_ms\":%d}",
        stage, done, total, task, time_ms);
    screen_event(&s->screen, json);
}

static void json_goes_through_untouched(void **state)
{
    (void)state;
    struct shown s;
    begin(&s, SCREEN_JSON);
    screen_event(&s.screen, "{\"type\":\"progress\",\"x\": 1}");
    end(&s);
    assert_string_equal(s.text, "{\"type\":\"progress\",\"x\": 1}\n");
    free(s.text);
}

static void plain_lines_come_every_five_seconds_and_at_the_end(void **state)
{
    (void)state;
    struct shown s;
    begin(&s, SCREEN_PLAIN);
    for (int i = 0; i <= 100; i++) {
        s.screen.now_ns = i * SECOND / 10; /* ten seconds */
        progress(&s, "score", "t1", i, 100, i * 100);
    }
    end(&s);
    assert_int_equal(count(s.text, "\n"), 2);
    assert_shown(&s, "50/100 images");
    assert_shown(&s, "7.5 s left");
    assert_shown(&s, "done: 100 images in 10.0 s");
    assert_null(strchr(s.text, '\x1b'));
    free(s.text);
}

static void a_terminal_gets_one_line_for_each_stage_updated_in_place(void **state)
{
    (void)state;
    struct shown s;
    begin(&s, SCREEN_TERMINAL);
    progress(&s, "profile", "t1", 1, 10, 0);
    progress(&s, "score", "t2", 5, 10, 0);
    assert_int_equal(s.screen.block_lines, 2);
    progress(&s, "score", "t2", 10, 10, 1000);
    assert_int_equal(s.screen.block_lines, 1);
    end(&s);
    assert_shown(&s, "[#####.....]  50 %");
    assert_shown(&s, "\x1b[2A\x1b[J");
    assert_shown(&s, "done: 10 images in 1.0 s\n");
    free(s.text);
}

static void the_next_stage_of_a_task_replaces_the_last(void **state)
{
    (void)state;
    struct shown s;
    begin(&s, SCREEN_TERMINAL);
    progress(&s, "read", "t1", 0, 1, 0);
    progress(&s, "score", "t1", 1, 10, 100);
    assert_int_equal(s.screen.n_stages, 1);
    screen_event(&s.screen, "{\"type\":\"retried\",\"task\":\"t1\",\"delivery\":1}");
    assert_int_equal(s.screen.n_stages, 0);
    end(&s);
    free(s.text);
}

static void training_shows_what_was_learned(void **state)
{
    (void)state;
    struct shown s;
    begin(&s, SCREEN_PLAIN);
    for (int i = 0; i < 2; i++, s.screen.now_ns = 10 * SECOND)
        screen_event(&s.screen,
                     "{\"type\":\"progress\",\"stage\":\"train student\",\"done\":1000,"
                     "\"total\":4000,\"unit\":\"images\",\"epoch\":2,\"epochs\":8,\"loss\":1.25,"
                     "\"accuracy\":0.456,\"task\":\"t1\",\"time_ms\":0}");
    screen_event(&s.screen, "{\"type\":\"epoch\",\"epoch\":2,\"epochs\":8,\"task\":\"t1\"}");
    end(&s);
    assert_shown(&s, "train student");
    assert_shown(&s, "1000/4000 images  epoch 2/8 loss 1.25 45.6 %");
    assert_int_equal(count(s.text, "\n"), 1);
    free(s.text);
}

static void a_stage_that_falls_silent_is_forgotten(void **state)
{
    (void)state;
    struct shown s;
    begin(&s, SCREEN_TERMINAL);
    progress(&s, "measure", "t1", 1, 10, 0);
    progress(&s, "score", "t2", 1, 10, 60000);
    assert_int_equal(s.screen.n_stages, 1);
    assert_string_equal(s.screen.stages[0].name, "score");
    end(&s);
    free(s.text);
}

static void more_stages_than_places_do_no_harm(void **state)
{
    (void)state;
    struct shown s;
    begin(&s, SCREEN_TERMINAL);
    for (int i = 0; i < 3 * SCREEN_STAGES; i++) {
        char task[16];
        snprintf(task, sizeof(task), "t%d", i);
        progress(&s, "score", task, 1, 10, 0);
    }
    assert_int_equal(s.screen.n_stages, SCREEN_STAGES);
    end(&s);
    free(s.text);
}

static void the_best_so_far_stays_in_sight(void **state)
{
    (void)state;
    struct shown s;
    begin(&s, SCREEN_TERMINAL);
    screen_event(
        &s.screen,
        "{\"type\":\"best\",\"name\":\"int8\",\"p50_us\":512.4,\"speedup_fp32\":"
        "2.13,\"metric\":\"top1\",\"value\":0.9385,\"drop_points\":0.1,\"part\":\"search\"}");
    progress(&s, "prove", "t1", 1, 10, 0);
    assert_int_equal(s.screen.block_lines, 2);
    end(&s);
    assert_int_equal(count(s.text, "int8: 512 us, 2.13x the original, top1 93.85 %"), 2);
    free(s.text);
}

static void a_student_that_was_not_proved_is_shown_without_a_drop(void **state)
{
    (void)state;
    struct shown s;
    begin(&s, SCREEN_PLAIN);
    screen_event(&s.screen,
                 "{\"type\":\"best\",\"name\":\"student-3\",\"p50_us\":30,\"speedup_fp32\":"
                 "12.5,\"metric\":\"top1\",\"value\":0.9312,\"part\":\"search\"}");
    end(&s);
    assert_shown(&s, "student-3: 30 us, 12.50x the original, top1 93.12 % (search part)\n");
    free(s.text);
}

static void where_throughput_is_wanted_the_best_is_shown_by_it(void **state)
{
    (void)state;
    struct shown s;
    begin(&s, SCREEN_PLAIN);
    screen_event(&s.screen,
                 "{\"type\":\"best\",\"name\":\"int8\",\"p50_us\":512.4,\"images_per_s\":124902,"
                 "\"speedup_fp32\":2.13,\"metric\":\"top1\",\"value\":0.9385,\"part\":\"search\"}");
    end(&s);
    assert_shown(&s, "int8: 124902 images/s, 2.13x the original, top1 93.85 % (search part)\n");
    free(s.text);
}

static void where_small_is_wanted_the_best_has_its_size(void **state)
{
    (void)state;
    struct shown s;
    begin(&s, SCREEN_PLAIN);
    screen_event(
        &s.screen,
        "{\"type\":\"best\",\"name\":\"student-3\",\"p50_us\":30,\"speedup_fp32\":12.5,"
        "\"packed_bytes\":98200,\"metric\":\"top1\",\"value\":0.9312,\"part\":\"search\"}");
    end(&s);
    assert_shown(&s, "student-3: 98.2 KB packed, 30 us, 12.50x the original, top1 93.12 %");
    free(s.text);
}

static void a_result_of_a_job_that_goes_on_is_shown(void **state)
{
    (void)state;
    struct shown s;
    begin(&s, SCREEN_PLAIN);
    screen_event(&s.screen, "{\"type\":\"result\",\"final\":false,\"verdict\":\"Twice as fast.\"}");
    end(&s);
    assert_string_equal(s.text, "  result so far                Twice as fast.\n");
    free(s.text);
}

static void an_event_of_a_type_not_known_is_shown_as_it_stands(void **state)
{
    (void)state;
    struct shown s;
    begin(&s, SCREEN_PLAIN);
    screen_event(&s.screen,
                 "{\"type\":\"warning\",\"text\":\"12 pictures are unreadable\",\"task\":"
                 "\"t\",\"service\":\"ingest\",\"time_ms\":1}");
    screen_event(&s.screen, "{\"type\":\"novelty\",\"level\":3,\"why\":\"x\"}");
    screen_event(&s.screen, "not json");
    end(&s);
    assert_shown(&s, "12 pictures are unreadable\n");
    assert_shown(&s, "level 3, why x");
    assert_shown(&s, "not json");
    assert_null(strstr(s.text, "ingest"));
    free(s.text);
}

static void what_was_reused_is_named(void **state)
{
    (void)state;
    struct shown s;
    begin(&s, SCREEN_PLAIN);
    screen_event(&s.screen, "{\"type\":\"reused\",\"kind\":\"prepare\",\"task\":\"t\"}");
    screen_event(&s.screen, "{\"type\":\"reused\",\"what\":\"packed data\",\"kind\":\"prepare\"}");
    end(&s);
    assert_shown(&s, "prepare: an earlier");
    assert_shown(&s, "packed data: an earlier");
    free(s.text);
}

static void what_a_refinement_takes_over_is_shown(void **state)
{
    (void)state;
    struct shown s;
    begin(&s, SCREEN_PLAIN);
    screen_event(&s.screen, "{\"type\":\"refines\",\"job\":\"1abc\",\"students\":3,"
                            "\"training_s\":125,\"prepared_s\":40}");
    end(&s);
    assert_shown(&s, "1abc");
    assert_shown(&s, "3 students after 2 m 05 s of training");
    free(s.text);
}

static void control_characters_do_not_reach_the_terminal(void **state)
{
    (void)state;
    struct shown s;
    begin(&s, SCREEN_PLAIN);
    screen_event(&s.screen, "{\"type\":\"warning\",\"text\":\"a\\u001b[2Jb\\nc\"}");
    end(&s);
    assert_null(strchr(s.text, '\x1b'));
    assert_int_equal(count(s.text, "\n"), 1);
    free(s.text);
}

/* ---- results ---- */

static char *table_of(const char *json, bool *ret_gain)
{
    char path[] = "/tmp/hone-results-XXXXXX";
    int fd = mkstemp(path);
    struct results *results = NULL;
    struct err err = {0};
    char *text = NULL;
    size_t bytes = 0;
    close(fd);
    assert_int_equal(fs_write_atomic(path, json, strlen(json), NULL), 0);
    int r = results_read(path, &results, &err);
    unlink(path);
    if (r < 0)
        return NULL;
    FILE *out = open_memstream(&text, &bytes);
    results_print(results, out);
    *ret_gain = results_has_gain(results);
    fclose(out);
    results_free(results);
    return text;
}

#define BASE                                                                                       \
    "\"verdict\":\"2.1x faster.\",\"chosen\":\"c\",\"hardware\":{\"cpu\":\"C\",\"isa\":\"i\"},"    \
    "\"baseline\":{\"p50_us\":1000,\"p90_us\":1100,\"metric\":\"top1\",\"value\":0.94,"            \
    "\"bytes\":1100000,\"threads\":1,\"batch\":1}"

static void the_table_has_a_row_for_each_network(void **state)
{
    (void)state;
    bool gain = false;
    _cleanup_(freep) char *text = table_of(
        "{" BASE ",\"plain_int8\":{\"p50_us\":500},\"results\":[{\"name\":\"c\",\"p50_us\":470,"
        "\"speedup_fp32\":2.13,\"speedup_int8\":1.06,\"drop_points\":0.1,\"within_limit\":true}]}",
        &gain);
    assert_non_null(strstr(text, "2.1x faster."));
    assert_non_null(strstr(text, "original fp32"));
    assert_non_null(strstr(text, "original int8"));
    assert_non_null(strstr(text, "* c "));
    assert_non_null(strstr(text, "2.13x")); /* as stated */
    assert_non_null(strstr(text, "2.00x")); /* plain int8, from the medians */
    assert_non_null(strstr(text, "94.00 %"));
    assert_true(gain);
}

static void a_network_that_is_slower_or_outside_the_limit_is_no_gain(void **state)
{
    (void)state;
    bool gain = true;
    _cleanup_(freep) char *text = table_of(
        "{" BASE ",\"results\":[{\"name\":\"c\",\"speedup_fp32\":0.9,\"within_limit\":true},"
        "{\"name\":\"d\",\"speedup_fp32\":3,\"within_limit\":false}]}",
        &gain);
    assert_non_null(text);
    assert_false(gain);
}

static void what_a_refinement_saved_stands_below_the_table(void **state)
{
    (void)state;
    bool gain = false;
    _cleanup_(freep) char *text =
        table_of("{" BASE ",\"results\":[],\"saved\":{\"job\":\"1abc\",\"seconds\":165,"
                 "\"training_s\":125,\"prepared_s\":40,\"students\":1}}",
                 &gain);
    assert_non_null(strstr(text, "saved: 2 m 45 s that job 1abc had spent: 2 m 05 s of training 1 "
                                 "student, 40.0 s from its submission to its first result"));
    _cleanup_(freep) char *none = table_of("{" BASE ",\"results\":[]}", &gain);
    assert_null(strstr(none, "saved"));
}

/* Small enough is what was asked for, however slow. */
static void within_a_limit_on_costs_the_choice_is_the_gain(void **state)
{
    (void)state;
    bool gain = false;
    _cleanup_(freep) char *small = table_of(
        "{" BASE ",\"limit\":{\"max_bytes\":9},\"results\":[{\"name\":\"c\",\"speedup_fp32\":0.9,"
        "\"within_limit\":true}]}",
        &gain);
    assert_true(gain);
    _cleanup_(freep) char *none =
        table_of("{\"chosen\":\"baseline\",\"limit\":{\"max_us\":9},\"results\":[{\"name\":\"c\","
                 "\"speedup_fp32\":2,\"within_limit\":true}]}",
                 &gain);
    assert_false(gain);
}

static void a_result_with_nothing_in_it_is_printed_with_dashes(void **state)
{
    (void)state;
    bool gain = true;
    _cleanup_(freep) char *text = table_of("{}", &gain);
    assert_non_null(strstr(text, "-"));
    assert_false(gain);
    assert_null(table_of("[1]", &gain));
    assert_null(table_of("{\"a\":", &gain));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_goes_through_untouched),
        cmocka_unit_test(plain_lines_come_every_five_seconds_and_at_the_end),
        cmocka_unit_test(a_terminal_gets_one_line_for_each_stage_updated_in_place),
        cmocka_unit_test(the_next_stage_of_a_task_replaces_the_last),
        cmocka_unit_test(training_shows_what_was_learned),
        cmocka_unit_test(a_stage_that_falls_silent_is_forgotten),
        cmocka_unit_test(more_stages_than_places_do_no_harm),
        cmocka_unit_test(the_best_so_far_stays_in_sight),
        cmocka_unit_test(where_small_is_wanted_the_best_has_its_size),
        cmocka_unit_test(a_student_that_was_not_proved_is_shown_without_a_drop),
        cmocka_unit_test(where_throughput_is_wanted_the_best_is_shown_by_it),
        cmocka_unit_test(a_result_of_a_job_that_goes_on_is_shown),
        cmocka_unit_test(an_event_of_a_type_not_known_is_shown_as_it_stands),
        cmocka_unit_test(what_was_reused_is_named),
        cmocka_unit_test(what_a_refinement_takes_over_is_shown),
        cmocka_unit_test(control_characters_do_not_reach_the_terminal),
        cmocka_unit_test(the_table_has_a_row_for_each_network),
        cmocka_unit_test(a_network_that_is_slower_or_outside_the_limit_is_no_gain),
        cmocka_unit_test(what_a_refinement_saved_stands_below_the_table),
        cmocka_unit_test(within_a_limit_on_costs_the_choice_is_the_gain),
        cmocka_unit_test(a_result_with_nothing_in_it_is_printed_with_dashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
