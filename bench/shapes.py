"""Which shapes each op is timed on: those of its users and of its peers' own benchmarks."""

ROWS = {
    "cpu": ["16384x1024", "4096x4096", "1024x16384"],
    "cuda": ["16384x4096", "8192x8192", "4096x16384", "1024x12288", "8192x5120", "4096x6144", "2048x4096", "131072x128",
             "4096x2048", "16384x128", "32768x256", "32768x1024", "32768x16384", "4096x65536", "1024x262144"],
}  # fmt: skip


def both(*shapes: str) -> list[str]:
    """Each shape contiguous and with its channels last."""
    return [shape + layout for shape in shapes for layout in ("", ":nhwc")]


# norms whose state moves with every call: images beyond and within the last-level cache, rows of (N, C)
STATEFUL = ("online_norm", "batch_renorm", "streaming_norm")
STREAMS = {
    "cpu": [*both("32x64x32x32"), "128x256x8x8", "128x4096", "128x1024"],
    "cuda": ["32x64x32x32", "256x64x56x56", "128x4096"],
}

# filters of linear layers and of 3x3 convolutions: long, many, short
WEIGHTS = ("weight_norm", "weight_standardization")
FILTERS = ["4096x4096", "16384x1024", "2048x4608", "65536x64"]

# The most telling ones first: time may run out. An op with extras has the shapes of the op unless it has its own.
SHAPES = {
    "cpu": {
        "layer_norm": ROWS["cpu"],
        "rms_norm": ROWS["cpu"],
        "layer_norm_2d": both("8x96x56x56"),
        "batch_norm": [*both("64x64x64x64", "32x256x56x56"), "16384x1024"],
        "group_norm": both("32x512x32x32"),
        "instance_norm": both("2x32x128x128x64"),
        **dict.fromkeys(STATEFUL, STREAMS["cpu"]),
        **dict.fromkeys(WEIGHTS, FILTERS),
        "layer_norm+silu": ROWS["cpu"][:1],
        "rms_norm+residual": ROWS["cpu"][:1],
        "batch_norm+skip+relu": both("64x64x64x64"),
        "group_norm+silu": ["32x512x32x32"],
        "instance_norm+leaky_relu": ["2x32x64x64x64"],
    },
    "cuda": {
        "layer_norm": ROWS["cuda"],
        "rms_norm": ROWS["cuda"],
        "layer_norm_2d": both("64x96x56x56", "64x384x14x14"),
        # ResNet-50; an MLP; few channels (FlagGems)
        "batch_norm": [
            *both("32x256x56x56", "32x64x112x112", "32x512x28x28", "32x1024x14x14", "32x2048x7x7"),
            "4096x1024", "20x6x65536", "16x16x8x88", "16x16x8x48", "4x16x64x4", "16x16x128",
        ],
        # Stable Diffusion, its VAE, video
        "group_norm": both("2x320x64x64", "1x128x512x512", "2x640x32x32", "2x1280x16x16", "1x128x20x256x256"),
        # nnU-Net
        "instance_norm": both("2x32x128x128x128", "2x64x64x64x64", "2x128x32x32x32", "2x320x8x8x8"),
        **dict.fromkeys(STATEFUL, STREAMS["cuda"]),
        **dict.fromkeys(WEIGHTS, FILTERS),
        "batch_norm+skip+relu": both("32x256x56x56", "32x512x28x28", "32x1024x14x14", "32x2048x7x7"),
    },
}  # fmt: skip
QUICK = {device: {op: shapes[:1] for op, shapes in table.items()} for device, table in SHAPES.items()}
QUICK["cpu"]["instance_norm"] = ["2x32x64x64x64"]
VARIANTS = (
    "rms_norm+residual", "layer_norm+silu", "batch_norm+skip+relu", "group_norm+silu", "instance_norm+leaky_relu",
)  # fmt: skip

RANKS = {"layer_norm": (2,), "rms_norm": (2,), "layer_norm_2d": (4,), "batch_norm": (2, 3, 4, 5),
         "group_norm": (3, 4, 5), "instance_norm": (3, 4, 5), **dict.fromkeys(STATEFUL, (2, 3, 4, 5)),
         **dict.fromkeys(WEIGHTS, (2,))}  # fmt: skip


def of(op: str, device: str, quick: bool, asked: list[str] | None) -> list[str]:
    """Its own shapes, or those asked for that it can take."""
    stem, table = op.split("+")[0], (QUICK if quick else SHAPES)[device]
    if asked is None:
        return table.get(op, table[stem])
    return [shape for shape in asked if shape.count("x") + 1 in RANKS[stem]]
