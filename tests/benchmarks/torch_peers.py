"""The contenders in PyTorch: torchvision, timm and kornia. Their images are channels-first."""

import importlib
import statistics
import time

import torch

from .cases import METHODS, Case


def contenders(case, device="cpu"):
    """Returns one call of each library, or the reason if it is not installed."""
    if case.layout == "NHWC":
        images, ids = case.batch()
        images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    else:
        images, ids = map(torch.from_numpy, case.batch())
    ids = torch.as_tensor(ids, dtype=torch.int64)
    if case.dtype != "uint8":
        images = (images.to(torch.float32) / 255).to(getattr(torch, case.dtype))
    images, ids, made = images.to(device), ids.to(device), {}
    for library in (torchvision, timm, kornia):
        try:
            made |= library(case, images, ids)
        except ImportError as error:
            made[library.__name__] = f"not measured: {error}"
    return made


def on_gpu(calls, rounds):
    """Returns library -> method -> seconds of a whole call, or {} if PyTorch finds no GPU."""
    found = {}
    if not torch.cuda.is_available():
        return found
    for method in METHODS:
        for per in ("example", "batch"):
            made = contenders(Case("224", "float32", "NHWC", method, per), "cuda")
            for name, call in made.items():
                if not isinstance(call, str):
                    fastest = [
                        min(_seconds(call, calls) for _ in range(3)) for _ in range(rounds + 1)
                    ]
                    median = statistics.median(fastest[1:])  # The first round warms up.
                    found.setdefault(f"{name}, per {per}", {})[method] = median
    return found


def _seconds(call, calls):
    """Returns the seconds per call of several calls that are dispatched together."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls


def torchvision(case, images, ids):
    """Returns one call of torchvision, which draws once for a batch."""
    v2 = importlib.import_module("torchvision.transforms.v2")
    if case.per != "batch":
        return {"torchvision": "draws for a batch only"}
    both = v2.CutMix(num_classes=case.classes), v2.MixUp(num_classes=case.classes)
    transform = {"cutmix": both[0], "mixup": both[1], "both": v2.RandomChoice(both)}[case.method]
    return {"torchvision": lambda: transform(images, ids)}


def timm(case, images, ids):
    """Returns calls of timm. They overwrite their input, which the timing ignores."""
    mixup = importlib.import_module("timm.data.mixup").Mixup
    alphas = {
        "mixup_alpha": float(case.method != "cutmix"),
        "cutmix_alpha": float(case.method != "mixup"),
    }
    modes = {"timm": "batch"} if case.per == "batch" else {"timm": "elem", "timm, pair": "pair"}

    def make(mode):
        transform = mixup(**alphas, mode=mode, num_classes=case.classes, label_smoothing=0.0)
        return lambda: transform(images, ids)

    return {name: make(mode) for name, mode in modes.items()}


def kornia(case, images, ids):
    """Returns one call of kornia, which draws for each example and cannot choose between both."""
    augmentation = importlib.import_module("kornia.augmentation")
    if case.per != "example" or case.method == "both":
        return {"kornia": "draws for each example, one method"}
    if case.method == "cutmix":
        transform = augmentation.RandomCutMixV2(p=1.0, data_keys=["input", "class"])
    else:
        transform = augmentation.RandomMixUpV2(p=1.0, data_keys=["input", "class"])
    return {"kornia": lambda: transform(images, ids)}
