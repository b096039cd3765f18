# The same files by PIL and by torchvision's transforms (the reference's path), one thread. Writes the names of the rows, then for each line that
# it reads one line of images/s. Used by loading.lua only.
import sys
import time

folder, count, size, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
try:
    import PIL
    from PIL import Image
except ImportError as why:
    sys.exit("no PIL to compare with: %s" % why)
paths = ["%s/image_%d.jpg" % (folder, k) for k in range(count)]


def decoded(path):
    with open(path, "rb") as file:
        return Image.open(file).convert("RGB")


rows = [("PIL %s: decode" % PIL.__version__, decoded),
        ("PIL %s: decode, resize" % PIL.__version__, lambda path: decoded(path).resize((size, size), Image.BILINEAR))]
try:
    import torch
    import torchvision
    from torchvision import transforms

    torch.set_num_threads(1)
    steps = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor(),
                                transforms.Normalize([0.5016, 0.5037, 0.5060], [0.1030, 0.0999, 0.0969])])
    rows.append(("PIL, torchvision %s: decode, resize, normalise" % torchvision.__version__, lambda path: steps(decoded(path))))
except ImportError:
    pass


def rate(work):
    start, done = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        for path in paths:
            work(path)
        done += count
    return done / (time.monotonic() - start)


print(";".join(name for name, _ in rows), flush=True)
for work in rows:
    rate(work[1])
for _ in sys.stdin:
    print(" ".join("%.1f" % rate(work) for _, work in rows), flush=True)
