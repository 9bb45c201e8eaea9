"""Commits in a repository."""
import glob, os, subprocess

WHO = ["-c", "user.name=chores", "-c", "user.email=chores@example.org", "-c", "gc.autoDetach=false"]


def git(directory, *words):
    return subprocess.run(["git", "-C", directory, *WHO, *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def unlock(directory):
    # What a process leaves behind that lost its power.
    for lock in glob.glob(os.path.join(directory, ".git", "**", "*.lock"), recursive=True):
        os.remove(lock)


def run(directory):
    if not os.path.exists(os.path.join(directory, ".git", "HEAD")):
        git(directory, "init", "--quiet", "--initial-branch=main")
    unlock(directory)
    while True:
        for name in range(3):
            with open(os.path.join(directory, f"file{os.urandom(1)[0] % 20}"), "a") as file:
                file.write(os.urandom(40).hex() + "\n")
        git(directory, "add", "--all")
        git(directory, "commit", "--quiet", "--message", "chore")
        done(git(directory, "rev-parse", "HEAD").strip())
        yield


def check(directory, tokens):
    if not tokens:
        return
    unlock(directory)
    git(directory, "fsck", "--full", "--strict", "--no-dangling")
    there = set(git(directory, "rev-list", "HEAD").split())
    missing = [token for token in tokens if token not in there]
    assert not missing, f"{len(missing)} commits are missing: {missing[:3]}"
    # Every object of the last commit can be read.
    git(directory, "archive", "--output=/dev/null", "HEAD")
