"""Trees unpacked, renamed and removed."""
import io, os, random, shutil, subprocess, tarfile

KEPT = 4


def tree(number):
    chance = random.Random(number)
    for place in range(60):
        yield f"d{place % 7}/e{place % 3}/f{place}", chance.randbytes(chance.randrange(12000))


def archive(number):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in tree(number):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(content), number, 0o640
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def run(directory):
    place = lambda name: os.path.join(directory, str(name))
    for name in os.listdir(directory):
        # Half unpacked, or half removed.
        if not name.isdecimal():
            shutil.rmtree(place(name))
    number = max([int(name) for name in os.listdir(directory)], default=0)
    while True:
        number += 1
        os.mkdir(place("new"))
        subprocess.run(["tar", "--extract", "--directory", place("new")], input=archive(number), check=True)
        os.rename(place("new"), place(number))
        done(number)
        for old in sorted(int(name) for name in os.listdir(directory) if name.isdecimal())[:-KEPT]:
            done(-old)
            os.rename(place(old), place("old"))
            shutil.rmtree(place("old"))
        yield


def check(directory, tokens):
    numbers = {int(token) for token in tokens}
    for number in sorted(numbers):
        if number < 0 or -number in numbers:
            continue
        for name, content in tree(number):
            with open(os.path.join(directory, str(number), name), "rb") as file:
                assert file.read() == content, f"{number}/{name} is spoiled"
