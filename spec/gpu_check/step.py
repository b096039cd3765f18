# The published training step in PyTorch on a GPU, with the images in its memory: python3 spec/gpu_check/step.py. One row a mode, as step.lua's:
# eager (mixed precision as the reference's code has it), the same with channels last and fused Adam, that compiled (torch.compile of all but the
# optimisers), and that in CUDA graphs: the best that we know to write.
import gc
import json
import math
import os
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'bench'))
sys.argv = sys.argv[:1]
from anchor import Predictor, resnet18  # noqa: E402

PAIRS, SIDE, IMAGES, ROUNDS, STEPS = 512, 128, 20000, 7, 10
torch.set_default_device('cuda')
torch.backends.cudnn.benchmark = True


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.predictor = resnet18(), Predictor(2048)
        self.head = nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 6))

    def forward(self, x, r):
        f = self.encoder(x)
        p = self.predictor(f, r)
        z = F.normalize(p)
        return f, p, z, self.head(z)


def row(**found):
    print('@ ' + json.dumps(found), flush=True)


def measure(mode, layout, fused, compiled):
    torch._dynamo.reset()
    gc.collect()
    torch.cuda.empty_cache()
    torch.manual_seed(1)
    data = torch.randint(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=torch.uint8)
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    model, probes = Model().to(memory_format=layout), nn.ModuleList([nn.Linear(512, 55), nn.Linear(512, 55)])
    adam = torch.optim.Adam(model.parameters(), lr=5e-5, weight_decay=1e-3, fused=fused or None)  # False would forbid the multi-tensor one, too
    probe_adam = torch.optim.Adam(probes.parameters(), lr=1e-3, weight_decay=1e-6, fused=fused or None)
    scaler = torch.amp.GradScaler('cuda')
    partner, itself = torch.arange(2 * PAIRS) ^ 1, torch.eye(2 * PAIRS) * -1e5

    def loss_of(images, r, target, labels):
        x = ((images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.2).contiguous(memory_format=layout)
        with torch.autocast('cuda', dtype=torch.float16):
            f, p, z, state = model(x, r)
            similarity = z.float() @ z.float().t()
            loss = F.cross_entropy(similarity.clamp(min=1e-7) / 0.1 + itself, partner)
            loss = loss + 5 * F.mse_loss(state[:, :4].float(), target[:, :4])
            return loss + F.cross_entropy(probes[0](f.detach()), labels) + F.cross_entropy(probes[1](p.detach()), labels)

    if compiled:
        loss_of = torch.compile(loss_of, mode=compiled, fullgraph=True)

    def step():
        images = data[torch.randint(0, IMAGES, (2 * PAIRS,))]
        r, target = torch.randn(PAIRS, 6), torch.randn(PAIRS, 6).repeat_interleave(2, dim=0)
        labels = torch.randint(0, 55, (PAIRS,)).repeat_interleave(2)
        torch.compiler.cudagraph_mark_step_begin()
        loss = loss_of(images, r, target, labels)
        adam.zero_grad(set_to_none=True)
        probe_adam.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(adam)
        scaler.step(probe_adam)
        scaler.update()

    def seconds(count):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            step()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    seconds(10)
    torch.cuda.empty_cache()  # what cuDNN's search took
    torch.cuda.reset_peak_memory_stats()
    times = [seconds(STEPS) for _ in range(ROUNDS)]
    median = statistics.median(times)
    row(mode=mode, milliseconds=median * 1e3, slowest=max(times) * 1e3, images_per_second=2 * PAIRS / median,
        peak_gigabytes=(torch.cuda.max_memory_allocated() - held) / 1e9, held_gigabytes=(torch.cuda.max_memory_reserved() - held) / 1e9,
        version=torch.__version__)


for mode, *arguments in [('eager', torch.contiguous_format, False, None), ('channels last, fused Adam', torch.channels_last, True, None),
                         ('compiled', torch.channels_last, True, 'default'),
                         ('compiled, CUDA graphs', torch.channels_last, True, 'reduce-overhead')]:
    try:
        measure(mode, *arguments)
    except Exception as problem:  # the others are measured all the same
        row(mode=mode, ok=False, error=str(problem).split('\n')[0])
