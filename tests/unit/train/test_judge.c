/* What counts as right where the data's labels are not the network's classes. */
#include "tests/unit/train/drawn.h"

#include <math.h>
#include <unistd.h>

#include "shared/train/loop.h"

enum { OUTPUTS = 6 };

static struct drawn data;
static struct dataset *unlabelled;
static struct graph *original;

static int open_data(void **state)
{
    (void)state;
    const struct dataset_pack_options options = {
        .sample_shape = {3, DRAWN_SIDE, DRAWN_SIDE}, .sample_rank = 3, .seed = 1, .threads = 2};
    struct dataset_report report = {0};
    drawn_open(&data);
    assert_int_equal(unlink(drawn_path(&data, "data/y_train.npy")), 0);
    assert_int_equal(unlink(drawn_path(&data, "data/y_test.npy")), 0);
    OK(dataset_pack(drawn_path(&data, "data"), &options, drawn_path(&data, "unlabelled"), &report,
                    err));
    OK(dataset_open(drawn_path(&data, "unlabelled"), &unlabelled, err));
    dataset_report_release(&report);
    original = drawn_network_of(8, OUTPUTS, 3);
    return 0;
}

static int close_data(void **state)
{
    (void)state;
    graph_free(original);
    dataset_close(unlabelled);
    drawn_close(&data);
    return 0;
}

static void labels_count_where_they_are_the_classes(void **state)
{
    (void)state;
    const struct train_judge judge = {.network = original};
    const int64_t classes = DRAWN_CLASSES;
    assert_int_equal(dataset_classes(unlabelled), 0);
    assert_int_equal(judge_metric_of(&judge, data.ds, classes, false), JUDGE_TOP1);
    assert_int_equal(judge_metric_of(&judge, data.ds, OUTPUTS, true), JUDGE_TOP1);
    assert_int_equal(judge_metric_of(&judge, data.ds, OUTPUTS, false), JUDGE_AGREEMENT);
    assert_int_equal(judge_metric_of(NULL, data.ds, OUTPUTS, false), JUDGE_TOP1);
    assert_int_equal(judge_metric_of(&judge, data.ds, 2, true), JUDGE_AGREEMENT);
    assert_int_equal(judge_metric_of(NULL, data.ds, 2, false), JUDGE_NONE);
    assert_int_equal(judge_metric_of(&judge, unlabelled, classes, false), JUDGE_AGREEMENT);
    assert_int_equal(judge_metric_of(NULL, unlabelled, classes, false), JUDGE_NONE);
    assert_string_equal(judge_metric_name(JUDGE_TOP1), "top1");
    assert_string_equal(judge_metric_name(JUDGE_AGREEMENT), "agreement");
    assert_null(judge_metric_name(JUDGE_NONE));
}

static void a_network_agrees_with_itself(void **state)
{
    (void)state;
    const struct train_judge judge = {original, data.pre};
    const struct infer_options options = {.threads = 2};
    struct graph *other = drawn_network_of(8, OUTPUTS, 4);
    int32_t *right = NULL;
    int64_t n = 0;
    double its = 0, others = 0;
    OK(judge_right(JUDGE_AGREEMENT, &judge, unlabelled, PART_TEST, &options, &right, &n, err));
    assert_int_equal(n, DRAWN_TEST);
    OK(judge_score(original, unlabelled, PART_TEST, &data.pre, &options, right, &its, err));
    OK(judge_score(other, unlabelled, PART_TEST, &data.pre, &options, right, &others, err));
    assert_true(its == 1);
    assert_true(others < 1);
    free(right);
    graph_free(other);
}

/* A student learns from answers alone, and the curve says how often it gives the same. */
static void learn_without_labels(struct dataset *ds, const char *name)
{
    const struct train_judge judge = {original, data.pre};
    struct train_options options = train_defaults();
    struct graph *student = drawn_network_of(8, OUTPUTS, 5);
    struct teacher *teacher = NULL;
    struct train_result result;
    const struct augmenter views = {.ds = ds, .part = PART_TRAIN, .pre = data.pre, .seed = 1};
    OK(teacher_build(original, &views,
                     &(struct teacher_options){.views = 1, .data = "d", .threads = 2},
                     drawn_path(&data, name), NULL, err));
    OK(teacher_open(drawn_path(&data, name), &teacher, err));
    options.teacher = teacher;
    options.judge = &judge;
    options.augment = (struct augment){0};
    options.epochs = 12;
    options.batch = 48;
    options.threads = 2;
    options.slice = 12;
    options.seed = 1;
    OK(train_run(student, ds, &data.pre, &options, &result, err));
    const struct train_epoch *curve = result.curve;
    print_message("%s: agreement %.3f after one epoch, %.3f after twelve\n", name,
                  curve[0].search_accuracy, curve[11].search_accuracy);
    assert_int_equal(result.metric, JUDGE_AGREEMENT);
    assert_true(curve[11].accuracy > 0.8);
    assert_true(curve[11].search_accuracy > 0.8);
    train_result_release(&result);
    teacher_close(teacher);
    graph_free(student);
}

static void a_student_learns_without_labels(void **state)
{
    (void)state;
    learn_without_labels(unlabelled, "unlabelled-answers");
}

static void labels_of_other_classes_are_not_looked_at(void **state)
{
    (void)state;
    learn_without_labels(data.ds, "labelled-answers");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_count_where_they_are_the_classes),
        cmocka_unit_test(a_network_agrees_with_itself),
        cmocka_unit_test(a_student_learns_without_labels),
        cmocka_unit_test(labels_of_other_classes_are_not_looked_at),
    };
    return cmocka_run_group_tests(tests, open_data, close_data);
}
