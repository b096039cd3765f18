# PyTorch's side of one row of the benchmark: python3 spec/bench/anchor.py LAYOUT[,LAYOUT] KIND ARGUMENT ...
# Sets the work up, runs it twice in each of the memory layouts, says "ready PID", and then answers each line that it reads: "nchw" or "nhwc" with the
# seconds of one measurement in that layout, "memory" with the largest resident size of this process in kB.
import math
import os
import sys
import time

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

torch.manual_seed(1)
LAYOUTS = {'nchw': torch.contiguous_format, 'nhwc': torch.channels_last}


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def drop_gradients(module):
    for p in module.parameters():
        p.grad = None


def resnet18():
    net = torchvision.models.resnet18()
    net.fc = nn.Identity()
    return net


class Layouts:
    """Work on images in either memory layout; the network is converted when the layout changes."""

    def __init__(self, net, count, side):
        self.net, self.x, self.layout = net, torch.randn(count, 3, side, side), None

    def images(self, layout):
        if layout != self.layout:
            self.layout = layout
            self.net.to(memory_format=LAYOUTS[layout])
            self.x = self.x.contiguous(memory_format=LAYOUTS[layout])
        return self.x


def resnet(count, side):
    work = Layouts(resnet18(), count, side)
    dy = torch.randn(count, 512)

    def run(layout):
        x = work.images(layout)
        drop_gradients(work.net)
        return seconds(lambda: work.net(x).backward(dy))
    return run


def resnet_forward(count, side):
    work = Layouts(resnet18().eval(), count, side)

    def run(layout):
        x = work.images(layout)
        with torch.no_grad():
            return seconds(lambda: work.net(x))
    return run


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln_1, self.ln_2, self.heads = nn.LayerNorm(width), nn.LayerNorm(width), heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.fc_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, hidden):
        S, T, E = x.shape
        q, k, v = (t.view(S, T, self.heads, E // self.heads).transpose(1, 2) for t in self.qkv(self.ln_1(x)).split(E, dim=2))
        p = torch.softmax((q @ k.transpose(-2, -1) / math.sqrt(E // self.heads)).masked_fill(hidden, float('-inf')), dim=-1)
        x = x + self.proj((p @ v).transpose(1, 2).reshape(S, T, E))
        return x + self.fc_proj(F.gelu(self.fc(self.ln_2(x))))


class Predictor(nn.Module):
    T = 128

    def __init__(self, width):
        super().__init__()
        self.read_in, self.read_out = nn.Linear(518, width), nn.Linear(width, 512)
        self.blocks, self.ln_f = nn.ModuleList(Block(width, 4) for _ in range(3)), nn.LayerNorm(width)
        mask = torch.ones(self.T, self.T).tril().bool()
        for i in range(1, self.T, 2):
            mask[i, i - 1] = False
        self.mask, self.own = mask, torch.eye(self.T).bool()

    def forward(self, f, r):
        actions = torch.stack([r, torch.zeros_like(r)], dim=1).view(-1, 6)
        x = self.read_in(torch.cat([f, actions], dim=1).view(-1, self.T, 518))
        for block in self.blocks:
            keep = (torch.rand(self.T, self.T // 2) >= 0.9).repeat_interleave(2, dim=1)
            x = block(x, ~(self.mask & (keep | self.own)))
        return self.read_out(self.ln_f(x)).view(-1, 512)


def gpt(width):
    net = Predictor(width)
    f, r, dy = torch.randn(512, 512, requires_grad=True), torch.randn(256, 6), torch.randn(512, 512)

    def run(layout):
        drop_gradients(net)
        f.grad = None
        return seconds(lambda: net(f, r).backward(dy))
    return run


def contextssl(pairs):
    encoder, predictor = resnet18(), Predictor(2048)
    head = nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 6))
    probes = nn.ModuleList([nn.Linear(512, 55), nn.Linear(512, 55)])
    work = Layouts(encoder, 2 * pairs, 128)
    r, target = torch.randn(pairs, 6), torch.randn(pairs, 6).repeat_interleave(2, dim=0)
    labels, partner = torch.zeros(2 * pairs, dtype=torch.long), torch.arange(2 * pairs) ^ 1
    itself = torch.eye(2 * pairs) * -1e5
    models = nn.ModuleList([encoder, predictor, head])
    optimizer = torch.optim.Adam(models.parameters(), lr=5e-5, weight_decay=1e-3)
    probe_optimizer = torch.optim.Adam(probes.parameters(), lr=1e-3, weight_decay=1e-6)

    def step(x):
        action = r.clone()
        action[:, 4:] = 0
        f = encoder(x)
        p = predictor(f, action)
        z = F.normalize(p)
        loss = F.cross_entropy((z @ z.t()).clamp(min=1e-7) / 0.1 + itself, partner)
        loss = loss + 5 * F.mse_loss(head(z)[:, :4], target[:, :4])
        loss = loss + F.cross_entropy(probes[0](f.detach()), labels) + F.cross_entropy(probes[1](p.detach()), labels)
        optimizer.zero_grad(set_to_none=True)
        probe_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        probe_optimizer.step()

    def run(layout):
        x = work.images(layout)
        return seconds(lambda: step(x))
    return run


def adam(width):
    parameters = list(Predictor(width).parameters())
    for p in parameters:
        p.grad = torch.full(p.shape, 0.01)
    optimizer = torch.optim.Adam(parameters, weight_decay=1e-3)
    return lambda layout: seconds(optimizer.step)


def tiny(back):
    x, y, dy = torch.ones(1, requires_grad=True), torch.ones(1), torch.ones(1)

    def work():
        for _ in range(250):
            z = x
            for _ in range(100):
                z = z + y
            if back:
                x.grad = None
                z.backward(dy)
    return lambda layout: seconds(work) / 25000


if __name__ == '__main__':
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    kinds = {f.__name__: f for f in (resnet, resnet_forward, gpt, contextssl, adam, tiny)}
    layouts = sys.argv[1].split(',')
    measure = kinds[sys.argv[2]](*map(int, sys.argv[3:]))
    for name in layouts:
        for _ in range(2):
            measure(name)
    print('ready', os.getpid(), flush=True)
    for line in sys.stdin:
        if line.strip() == 'memory':
            with open('/proc/self/status') as status:
                print(next(text.split()[1] for text in status if text.startswith('VmHWM')), flush=True)
        else:
            print('%.9f' % measure(line.strip()), flush=True)
