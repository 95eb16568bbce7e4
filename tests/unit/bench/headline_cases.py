"""Whole jobs of the benchmark: attached to again, stopped, repeated; the table of their results."""
import contextlib
import io
import json
import os
import sys
import tempfile
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.environ["HONE_TOP"], "scripts/lib/bench"))
import ablations  # noqa: E402
import headline  # noqa: E402
import table  # noqa: E402
from cases import CASES, Goal  # noqa: E402
from job import Job  # noqa: E402

FAKE = os.path.join(HERE, "fake_hone.py")


class Scratch:
    """A job's folder, and what was asked of the stand-in."""

    def __init__(self, folder):
        self.folder, self.log = folder, os.path.join(folder, "log")
        os.environ["FAKE_LOG"] = self.log

    def run(self, options=("--budget", "2h"), die=None, **kwargs):
        os.environ["FAKE_DIE"] = str(die or 999)
        with contextlib.redirect_stdout(io.StringIO()):
            return Job(FAKE, os.path.join(self.folder, "job")).run("m", "d", list(options),
                                                                   **kwargs)

    def asked(self):
        """The commands that matter: not those that only look."""
        with open(self.log, encoding="utf-8") as f:
            return [c for c in f.read().split() if c not in ("jobs", "down")]


def a_job_is_submitted_once_and_its_result_fetched(scratch):
    taken = scratch.run()
    assert scratch.asked() == ["optimize", "get"], scratch.asked()
    assert taken["job_seconds"] == 7200 and taken["first_verified_seconds"] == 1800, taken
    assert taken["result"] == {"verdict": "good"}


def a_job_that_was_left_is_attached_to_again(scratch):
    note = os.path.join(scratch.folder, "job", "job.json")
    try:
        scratch.run(die=5)
    except SystemExit as e:
        assert "goes on" in str(e), e
    else:
        raise AssertionError("a job that runs has no result")
    assert os.path.exists(note)
    taken = scratch.run()
    assert "optimize" not in scratch.asked()[1:] and "watch" in scratch.asked(), scratch.asked()
    assert taken["job_seconds"] == 7200


def a_submission_that_never_happened_is_made_again(scratch):
    os.makedirs(os.path.join(scratch.folder, "job"))
    Job(FAKE, os.path.join(scratch.folder, "job")).write_note(
        {"asked": ["optimize", "m", "--data", "d", "--budget", "2h"]})
    scratch.run()
    assert scratch.asked() == ["optimize", "get"], scratch.asked()


def a_job_that_was_asked_for_differently_is_left_alone(scratch):
    scratch.run()
    try:
        scratch.run(options=("--budget", "8h"))
    except SystemExit as e:
        assert "--again" in str(e), e
    else:
        raise AssertionError("another job was taken for this one")


def a_job_is_stopped_once_and_resumed(scratch):
    taken = scratch.run(stop_after_s=3600)
    assert scratch.asked() == ["optimize", "watch", "get"], scratch.asked()
    assert taken["stopped_s"] > 0 and taken["job_seconds"] == 7200
    scratch.run(stop_after_s=3600)
    assert scratch.asked()[3:] == ["watch", "get"], scratch.asked()


def the_last_budget_counts(_):
    assert headline.budget_s(["--budget", "8h", "--max-drop", "1"]) == 8 * 3600
    assert headline.budget_s(["--budget", "2h", "--budget=1m30s"]) == 90
    assert headline.budget_s([]) == 0


def figures_stand_where_they_are_owed(_):
    speed, seconds = Goal("fp32", 8, 12), Goal("first", 300, 180)
    assert [table.standing(v, speed) for v in (7.9, 8, 11.9, 12)] == \
        ["short of it", "reached", "reached", "aim reached"]
    assert [table.standing(v, seconds) for v in (301, 300, 180)] == \
        ["short of it", "reached", "aim reached"]


def row(case, seed, **more):
    return {"case": case, "seed": seed, "job_seconds": 7190, "first_verified_seconds": 100 + seed,
            "chosen": "student-1", "metric": "top1", "baseline": 0.9339, "value": 0.925,
            "drop_points": 0.89, "drop_upper95_points": 0.99, **more}


def write(scratch, name, text):
    with open(os.path.join(scratch.folder, name + ".json"), "w", encoding="utf-8") as f:
        json.dump(text, f)


def printed(scratch):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        table.show(scratch.folder)
    return out.getvalue()


def the_table_has_all_seeds_of_a_case_in_a_row(scratch):
    for seed, fp32 in ((1, 11), (2, 13), (3, 12.5)):
        write(scratch, f"r56-2h-seed{seed}", row("r56-2h", seed, fp32=fp32, int8=5))
    text = printed(scratch)
    line = next(t for t in text.splitlines() if "faster fp32 runtime" in t)
    assert "1 2 3" in line and "12.50x (11.00 to 13.00)" in line and "aim reached" in line, line
    assert "8x" in line and "12x" in line
    int8 = next(t for t in text.splitlines() if "NNCF" in t)
    assert "5.00x (5.00 to 5.00)" in int8 and " reached " in int8 and "aim" not in int8, int8
    assert "103 s" in text or "101 to 103" in text, text


def what_was_disturbed_reaches_nothing(scratch):
    write(scratch, "r20-seed1", row("r20", 1, fp32=90, noisy=["openvino fp32"]))
    text = printed(scratch)
    assert "not to be trusted" in text and "aim reached" in text.split("first result")[1], text
    assert "aim reached" not in text.split("first result")[0], text
    assert "NOISY, to be measured again: openvino fp32" in text, text


def jobs_with_other_options_stand_by_themselves(scratch):
    name = table.name_of("r20", 1, "--budget 4m")
    assert name == "r20-seed1+budget-4m", name
    write(scratch, name, row("r20", 1, fp32=3))
    write(scratch, "r20-seed1", row("r20", 1, fp32=9, chosen="baseline"))
    text = printed(scratch)
    assert "r20+budget-4m" in text and "3.00x" in text and "9.00x" in text, text
    assert "the original stays" in text and "short" in text, text
    assert "101 s" in text.split("first result")[1].splitlines()[0], text


def every_case_names_what_there_is_to_compare(_):
    for name, case in CASES.items():
        assert case.goals and headline.budget_s(case.options.split()) > 0, name
        assert all(g.figure in table.AGAINST and g.aim > g.reach for g in case.goals), name


def ablated(variant, seed, speedup, accuracies):
    """The row of a job whose students came to these accuracies; the fastest was chosen."""
    students = [{"name": f"student-{i}", "rungs": [{"accuracy": a / 2}, {"accuracy": a}]}
                for i, a in enumerate(accuracies)]
    chosen = {"file": "model.onnx", "speedup_fp32": speedup, "value": 0.92, "drop_points": 0.8,
              "drop_upper95_points": 0.95, "name": "student-0"}
    result = {"verdict": "", "chosen": "student-0", "results": [chosen], "hardware": {"cpu": "C"},
              "baseline": {"metric": "top1", "value": 0.93},
              "students": [*students, {"name": "student-9", "rungs": []}]}
    taken = {"result": result, "job_seconds": 1799, "first_verified_seconds": 60}
    return {**ablations.row_of(variant, seed, taken), "model": "net.onnx",
            "options": ["--budget", "30m"]}


def ablations_stand_beside_the_whole(scratch):
    for seed, speedup in ((1, 8), (2, 10), (3, 9)):
        write(scratch, f"all-seed{seed}", ablated("all", seed, speedup, (0.91, 0.915)))
    write(scratch, "random-seed1", ablated("random", 1, 6, (0.88,)))
    write(scratch, "precision-seed1", ablated("precision", 1, 2, ()))
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        ablations.show(scratch.folder)
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert "all 1 2 3 9.00x (8.00 to 10.00)" in lines[4], lines
    assert "91.50 % (91.50 to 91.50)" in lines[4], lines
    assert lines[5].startswith("random 1 6.00x 92.00 % 0.95 1 88.00 %"), lines
    assert lines[6].startswith("precision 1 2.00x 92.00 % 0.95 0 -"), lines


TESTS = (
    a_job_is_submitted_once_and_its_result_fetched,
    a_job_that_was_left_is_attached_to_again,
    a_submission_that_never_happened_is_made_again,
    a_job_that_was_asked_for_differently_is_left_alone,
    a_job_is_stopped_once_and_resumed,
    the_last_budget_counts,
    figures_stand_where_they_are_owed,
    the_table_has_all_seeds_of_a_case_in_a_row,
    what_was_disturbed_reaches_nothing,
    jobs_with_other_options_stand_by_themselves,
    every_case_names_what_there_is_to_compare,
    ablations_stand_beside_the_whole,
)


def main():
    failed = 0
    print(f"1..{len(TESTS)}")
    for i, test in enumerate(TESTS, 1):
        with tempfile.TemporaryDirectory() as folder:
            try:
                test(Scratch(folder))
                print(f"ok {i} - {test.__name__}")
            except Exception:  # pylint: disable=broad-except
                failed += 1
                print(f"not ok {i} - {test.__name__}")
                print("".join("# " + line + "\n" for line in traceback.format_exc().splitlines()))
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
