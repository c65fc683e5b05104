"""An array of four IOMs in a folder of its own, for the benches that take one IOM away and back."""
import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20


class Array:
    """`with Array(...) as array`: it runs, mounted at array.mnt; in the end it and its clients are stopped."""

    def __init__(self, mendfs, top, size_mib, cache="64M"):
        self.mendfs, self.dir, self.mnt = os.path.abspath(mendfs), os.path.join(top, "a"), os.path.join(top, "m")
        self.clients = []
        os.mkdir(self.mnt)
        try:
            self.run("up", "--mount", self.mnt, "--size", "%dM" % size_mib, "--cache", cache)
        except BaseException:
            self.__exit__()
            raise

    def run(self, command, *args):
        line = [self.mendfs, command, "--dir", self.dir, *args]
        r = subprocess.run(line, capture_output=True, text=True, timeout=120)
        if r.returncode:
            sys.exit("bench: mendfs %s: %s" % (command, (r.stderr or r.stdout).strip()))

    def status(self):
        said = subprocess.run([self.mendfs, "status", "--dir", self.dir, "--json"], stdout=subprocess.PIPE, timeout=10)
        return json.loads(said.stdout)

    def iom(self, n):
        return self.status()["ioms"][n]

    def wait(self, what, pause=0.02, limit=300):
        """Until what(status) is true. To ask costs a process each time: beside clients `pause` is longer."""
        until = time.monotonic() + limit
        while not what(self.status()):
            if time.monotonic() > until:
                states = [i["state"] for i in self.status()["ioms"]]
                sys.exit("bench: waited %d s in vain; status says %s" % (limit, states))
            time.sleep(pause)

    def take_away(self, n):
        os.kill(self.iom(n)["pid"], signal.SIGKILL)
        self.wait(lambda s: s["state"] == "running" and s["ioms"][n]["stand_in"] is not None)

    def bring_back(self, n):
        """Starts it again; it begins to rebuild in a moment."""
        self.run("start-iom", str(n))

    def wait_whole(self, pause=0.02):
        self.wait(lambda s: all(i["state"] == "up" for i in s["ioms"]), pause)

    def rebuilt(self, n):
        """(blocks, seconds) of its last rebuild, by its own log."""
        with open(f"{self.dir}/log/iom-{n}") as log:
            blocks, ms = re.findall(r"is whole again: (\d+) blocks in (\d+) ms", log.read())[-1]
        return int(blocks), int(ms) / 1000

    def client(self, code, *args):
        """A process that runs the Python `code`; ended with the array."""
        p = subprocess.Popen([sys.executable, "-c", code, *map(str, args)], stdout=subprocess.PIPE, text=True)
        self.clients.append(p)
        return p

    def seconds(self, code, *args):
        """What such a process prints: how long it took."""
        said, _ = self.client(code, *args).communicate()
        if not said:
            sys.exit("bench: a client failed")
        return float(said)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for p in self.clients:
            p.kill()
            p.wait()
        subprocess.run([self.mendfs, "down", "--force", "--dir", self.dir], stdout=subprocess.DEVNULL, timeout=120)


class Folder:
    """`with Folder(dir) as top`: a new folder there; what lies in it goes at the end, however that comes."""

    def __init__(self, parent):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        self.top = tempfile.mkdtemp(prefix="mendfs-bench.", dir=parent)

    def __enter__(self):
        return self.top

    def __exit__(self, *_):
        shutil.rmtree(self.top, ignore_errors=True)


def options(doc):
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dir", default="/var/tmp")
    p.add_argument("--mendfs", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../build/mendfs"))
    return p


def fill(path, mib):
    """Random bytes, on disk at the end."""
    with open(path, "r+b" if os.path.exists(path) else "wb", buffering=0) as f:
        for _ in range(mib):
            f.write(os.urandom(MIB))
        os.fsync(f.fileno())


def median(values):
    return sorted(values)[(len(values) - 1) // 2]
