"""The network and the batches of `peers.py` in PyTorch."""

import itertools
import sys

import torch
import torch.nn.functional as F

import audio_utils

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    sys.modules["triton"] = None  # not needed on a CPU, and its LLVM crashes beside TensorFlow's
else:
    torch.set_default_device(DEVICE)
torch.set_num_threads(2)


def notes(settings):
    """Return batch(), which generates noisy notes: with a gap and whole, (batch size, N)."""
    count, window = settings.batch_size, settings.window
    frequencies = torch.tensor([audio_utils.note_frequency(note) for note in settings.notes])
    gap = round(settings.amount * window)

    def batch():
        index = torch.randint(len(frequencies), (count, 1))
        angle = 2 * torch.pi * frequencies[index] * torch.arange(window) / settings.sample_rate
        tone = audio_utils.TONE_AMPLITUDE * torch.sin(angle + 2 * torch.pi * torch.rand(count, 1))
        clean = tone + audio_utils.NOISE_STD * torch.randn(count, window)
        since_gap = torch.arange(window) - torch.randint(window - gap + 1, (count, 1))
        return clean * ((since_gap < 0) | (since_gap >= gap)), clean

    return batch


def digits(settings, images):
    """Return batch(), which samples deformed digits: with a rectangle removed, and whole.

    Half of the inputs stay whole, as in `mnist_dvae.make_batch`.
    """
    images, count, side = torch.tensor(images, device=DEVICE), settings.batch_size, images.shape[1]
    area = settings.amount * side**2

    def interval(lengths):
        first = torch.floor(torch.rand(lengths.shape) * (side - lengths + 1))
        since_first = torch.arange(side) - first
        return ((since_first >= 0) & (since_first < lengths)).float()

    def batch():
        clean = images[torch.randint(len(images), (count,)), None] / 255
        slopes = settings.deform * torch.randn(count, 2, 3) * torch.tensor([[0, 1, 0], [1, 0, 0]])
        grid = F.affine_grid(torch.eye(2, 3) + slopes, list(clean.shape), align_corners=False)
        clean = F.grid_sample(clean, grid, padding_mode="reflection", align_corners=False)[:, 0]
        others = clean[count // 2 :]
        rows = torch.round(torch.sqrt(area * 2 ** (2 * torch.rand(len(others), 1) - 1)))
        hole = interval(rows)[:, :, None] * interval(torch.round(area / rows))[:, None, :]
        corrupted = torch.cat([clean[: count // 2], others * (1 - hole)])
        return corrupted.reshape(count, -1), clean.reshape(count, -1)

    return batch


def dense_layers(sizes, activation):
    activate = {"relu": torch.nn.ReLU, "silu": torch.nn.SiLU}[activation]
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(inputs, outputs), activate()]
    return torch.nn.Sequential(*layers[:-1])


def log_prior(z, logits, means, log_vars):
    """Return the log density (B,) of the mixture prior at z, up to a constant, as in `models`."""
    precisions = torch.exp(-log_vars)
    constants = (means**2 * precisions + log_vars).sum(-1)
    squares = z**2 @ precisions.T - 2 * z @ (means * precisions).T + constants
    return torch.logsumexp(torch.log_softmax(logits, -1) - 0.5 * squares, -1)


def nll_of(likelihood, clean, decoded, log_std):
    if likelihood == "bernoulli":
        return F.binary_cross_entropy_with_logits(decoded, clean, reduction="none").sum(-1)
    half_log_2_pi = 0.919
    squares = ((clean - decoded) * torch.exp(-log_std)) ** 2
    return (0.5 * squares + log_std + half_log_2_pi).sum(-1)


def contender(batch, likelihood, encoder, decoder, prior, activation, rate, every, jit):
    """Train with Adam. Yields a function reconstruct(corrupted, observed) every `every` steps.

    `encoder` and `decoder` are widths, `prior` is the shape of the prior's means.
    """
    encoder, decoder = (dense_layers(sizes, activation) for sizes in (encoder, decoder))
    log_std = torch.nn.Parameter(torch.tensor(-0.7))  # standard deviation 0.5, as in `models`
    prior = torch.zeros(prior[0]), torch.randn(prior), torch.full(prior, -1.4)  # as in `models`
    prior = [torch.nn.Parameter(part) for part in prior]
    parameters = [*encoder.parameters(), *decoder.parameters(), log_std, *prior]
    optimizer = torch.optim.Adam(parameters, rate, fused=True)

    def loss_of(corrupted, clean):
        mean, log_var = encoder(corrupted).chunk(2, -1)
        noise = torch.randn_like(mean)
        z = mean + torch.exp(0.5 * log_var) * noise
        log_posterior = -0.5 * (noise**2 + log_var).sum(-1)
        kl = log_posterior - log_prior(z, *prior)
        return (nll_of(likelihood, clean, decoder(z), log_std) + kl).mean()

    if jit:
        loss_of = torch.compile(loss_of)

    @torch.no_grad()
    def reconstruct(corrupted, observed):
        mean, _ = encoder(torch.tensor(corrupted, device=DEVICE)).chunk(2, -1)
        decoded = decoder(mean)
        return (torch.sigmoid(decoded) if likelihood == "bernoulli" else decoded).cpu()

    while True:
        yield reconstruct
        for _ in range(every):
            optimizer.zero_grad()
            loss = loss_of(*batch())
            loss.backward()
            optimizer.step()
        loss.item()  # waits for the GPU
