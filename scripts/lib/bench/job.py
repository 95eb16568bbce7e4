"""One job of hone optimize in a home folder of its own. It may be interrupted at any point, this
process and all of Hone with it: the same call again goes on where it was."""
import glob
import json
import os
import shutil
import subprocess
import sys
import time

SILENCE_MS = 30_000  # between two events: Hone was down (docs/CLI.md, --budget)


class Job:
    """folder: its home, its results (out), job.json: what was asked for, and the job's id."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.home, self.out = os.path.join(folder, "home"), os.path.join(folder, "out")
        self.note = os.path.join(folder, "job.json")
        self.events = os.path.join(folder, "events.jsonl")

    def hone(self, *args, **kwargs):
        return subprocess.run([self.program, *args, "--home", self.home], text=True,
                              stdout=subprocess.PIPE, **kwargs)

    def forget(self):
        """Ends what runs there, and removes everything."""
        if os.path.isdir(self.home):
            self.hone("down", stderr=subprocess.DEVNULL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def write_note(self, note):
        with open(self.note + ".part", "w", encoding="utf-8") as f:
            json.dump(note, f, indent=1)
        os.replace(self.note + ".part", self.note)

    def listed(self):
        """The newest job of the home (there is one), or None."""
        jobs = json.loads(self.hone("jobs", "--json", check=True).stdout)
        return jobs[0] if jobs else None

    def begun(self, asked):
        """The note of a job that was begun before; None: there is none."""
        if not os.path.exists(self.note):
            return None
        with open(self.note, encoding="utf-8") as f:
            note = json.load(f)
        if note["asked"] != asked:
            sys.exit(f"{self.folder} has a job that was asked for with\n  {' '.join(note['asked'])}"
                     f"\ninstead of\n  {' '.join(asked)}\n--again begins anew")
        return note if self.listed() else None

    def follow(self, command, stop_after_s=0):
        """Reads events until the job ends (True), or until it has run for so long."""
        first_ms = None
        with open(self.events, "w", encoding="utf-8") as events, \
             subprocess.Popen([self.program, *command, "--json", "--home", self.home], text=True,
                              stdout=subprocess.PIPE) as client:
            for line in client.stdout:
                events.write(line)
                event = json.loads(line)
                show(event)
                at_ms = event.get("time_ms")
                first_ms = first_ms or at_ms
                if stop_after_s and at_ms and at_ms - first_ms > 1000 * stop_after_s:
                    client.terminate()
                    return False
        return True

    def run(self, model, data, options, stop_after_s=0):
        """Begins the job, or goes on with it; returns what came of it when it has ended well.
        stop_after_s: in between everything is stopped once, and started again."""
        asked = ["optimize", model, "--data", data, *options]
        note = self.begun(asked)
        if note is None:
            self.forget()
            os.makedirs(self.folder)
            note = {"asked": asked}
            self.write_note(note)
            command, runs = [*asked, "--out", self.out], True
        else:
            job = self.listed()
            print(f"  goes on with job {job['job']}, which was begun before", flush=True)
            command, runs = ["watch", job["job"]], job["state"] == "running"
        if not self.follow(command, stop_after_s if runs and "stopped_s" not in note else 0):
            self.stop(note)
            self.follow(["watch", self.listed()["job"]])
        return self.collect(note)

    def stop(self, note):
        """Everything ends; whoever asks next starts it again."""
        print("  everything is stopped here, and started again", flush=True)
        at = time.time()
        self.hone("down", check=True)
        note["stopped_s"] = round(at - self.listed()["created_ms"] / 1000, 1)
        self.write_note(note)

    def collect(self, note):
        """Fetches the result; what the job took."""
        job = self.listed() or {"state": "is not there"}
        memory = peak_memory(self.home)
        if job["state"] == "running":
            sys.exit("The job goes on; the same command attaches to it again.")
        if job["state"] != "succeeded":
            sys.exit(f"the job in {self.folder}: {job['state']} {job.get('error', '')}\n"
                     "--again begins anew")
        code = self.hone("get", job["job"], "--out", self.out, "--force", "--json").returncode
        if code not in (0, 3):
            sys.exit(f"hone get {job['job']} --home {self.home} failed ({code})")
        self.hone("down", stderr=subprocess.DEVNULL)
        with open(os.path.join(self.out, "result.json"), encoding="utf-8") as f:
            result = json.load(f)
        seconds = (job["ended_ms"] - job["created_ms"] - job.get("away_ms", 0)) / 1000
        return {"job": job["job"], "job_seconds": round(seconds, 1),
                "first_verified_seconds": round(self.first_result(job), 1),
                "peak_memory_mb": memory, **{k: v for k, v in note.items() if k == "stopped_s"},
                "result": result}

    def first_result(self, job):
        """Seconds from the submission to the first result with its proofs, without those in which
        Hone was down."""
        at_ms, silent_ms = job["created_ms"], 0
        with open(self.events, encoding="utf-8") as f:
            for line in f:
                event = json.loads(line)
                now_ms = event.get("time_ms", at_ms)
                silent_ms += now_ms - at_ms if now_ms - at_ms > SILENCE_MS else 0
                at_ms = now_ms
                if event.get("type") in ("result", "succeeded"):
                    break
        return (at_ms - job["created_ms"] - min(silent_ms, job.get("away_ms", 0))) / 1000


def show(event):
    """What happens, on a terminal."""
    kind = event.get("type")
    if kind == "best":
        images = event.get("images_per_s")
        speed = f"{images:.0f} images/s" if images else f"{event['p50_us']:.0f} us"
        print(f"  best so far: {event['name']}, {speed}, {100 * event.get('value', 0):.2f} %",
              flush=True)
    elif kind in ("result", "rung", "failed"):
        text = event.get("verdict") or event.get("error") or \
            f"rung {event.get('rung')}: {event.get('students')} students, " \
            f"{event.get('epochs')} epochs each"
        print(f"  {text}", flush=True)


def peak_memory(home):
    """MB that each process of this Hone needed at its peak: they outlive the job a little."""
    peaks = {}
    for process in glob.glob("/proc/[0-9]*"):
        try:
            with open(process + "/environ", "rb") as f:
                mine = home.encode() in f.read()
            with open(process + "/status", encoding="ascii", errors="replace") as f:
                status = dict(line.split(":", 1) for line in f)
        except OSError:
            continue  # it has ended, or is not ours
        name = status["Name"].strip()
        if mine and "VmHWM" in status and name.startswith(("hone-", "redis", "valkey")):
            peaks[name] = round(int(status["VmHWM"].split()[0]) / 1024, 1)
    return peaks
