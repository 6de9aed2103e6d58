"""Reads answers out of packed prompt trees: what `TreeDecoder` does, without padding or masks, in shapes that repeat.

On a GPU the host would need longer to start a layer's kernels than the GPU to run them. So layers are compiled, and
what comes in few shapes is recorded once as a CUDA graph and only started afterwards: an opening, filled up to a
multiple of some visual tokens by an image that nobody asks about, and each step of decoding.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.modeling.compiling import compile_layers
from xray_vqa.modeling.decoding import BoxGrammar, Decoder, Grammar, choose
from xray_vqa.modeling.loading import LoadedModel
from xray_vqa.modeling.packed_tree import TreeLayout, pack_rows
from xray_vqa.modeling.prompt_tree import IGNORE_INDEX, PREFIX_SEGMENT, Branch, TreeRow, build_row
from xray_vqa.modeling.seeing import WINDOW_STARTS, see, send, tower_inputs
from xray_vqa.modeling.served_tree import PREFIX_PARTS, LayerMemory, StepLayout, part_starts, use_served_attention

IMAGES_AT_ONCE = 16
"""Whose prefixes the memory holds; the 7B keeps 56 KiB of each token."""
BRANCH_TOKENS = 8192
"""Of all branches that are decoded together."""
VISUAL_STEP = 32
"""An opening is filled up to a multiple of so many visual tokens for each image."""
RECORD_AFTER = 3
"""Several images of one shape are recorded when they have come so often; a recording stops the work for a second."""
MAX_RECORDINGS = 96
"""More shapes than that are run without one."""
BRANCH_STEP = 64
"""A branch is given a multiple of so many tokens."""
PROMPT_STEP = 8
"""The prompts of a step's branches are filled up to a multiple of so many tokens."""


@dataclass(frozen=True, slots=True)
class PackedState:
    """The trees that are open. Opening others ends it."""

    number: int
    part_starts: Tensor
    """As in `StepLayout`, for as many images as there may be."""
    branch_starts: tuple[int, ...]
    """The position at which every branch of an image begins."""


@dataclass(frozen=True)
class _Plan:
    """All of an opening but the pixels: the same for all scans of a size that are asked the same."""

    grid_thw: Tensor
    """(images, 3) int64, on the CPU; the rest is on the model's device."""
    tower: dict[str, Tensor]
    tower_numbers: dict[str, int]
    input_ids: Tensor
    position_ids: Tensor
    visual: Tensor
    ends: Tensor
    """(branches,) int64, place of each branch's last token."""
    layout: TreeLayout
    part_starts: Tensor
    """As in `PackedState`."""
    branch_starts: tuple[int, ...]

    @cached_property
    def tensors(self) -> list[Tensor]:
        """What differs from one plan of a shape to the next."""
        return [
            *self.tower.values(), self.input_ids, self.position_ids, self.visual, self.ends, *self.layout.starts,
        ]  # fmt: skip

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """What has to be equal for two plans to be one recording."""
        lengths = (tensor.shape[-1] for tensor in self.tensors)
        return (*lengths, *self.layout.numbers, *self.tower_numbers.values())

    def copied(self) -> "_Plan":
        """Return the same with tensors of its own."""
        prefixes, families, branches = (starts.clone() for starts in self.layout.starts)
        layout = replace(self.layout, prefix_starts=prefixes, family_starts=families, branch_starts=branches)
        tower = {name: tensor.clone() for name, tensor in self.tower.items()}
        own = {name: getattr(self, name).clone() for name in ("input_ids", "position_ids", "visual", "ends")}
        return replace(self, tower=tower, layout=layout, **own)


class _Recording:
    """Some work on tensors that stay where they are, recorded at its first run and only started afterwards."""

    def __init__(self, inputs: list[Tensor], work: Callable[[], Tensor], pool: Any) -> None:
        self._inputs = inputs
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # compiles, and lets libraries take the memory that they keep
                work()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._output = work()

    def run(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the work's result for other inputs of the same shapes; the next run writes over it."""
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._output


class PackedDecoder(Decoder):
    """Runs packed prompt trees on one loaded model of a family that has them. Everything is under inference mode.

    Args:
        loaded: Changed in place: its attention, and on a GPU its layers, which are compiled.
        record: Whether shapes are recorded, which only a GPU can; by default where there is one.
    """

    def __init__(self, loaded: LoadedModel, *, record: bool | None = None) -> None:
        super().__init__(loaded)
        self._record = loaded.device.type == "cuda" if record is None else record
        use_served_attention(loaded.base)
        if self._record:
            compile_layers(loaded.base)
        self._text = loaded.base.get_submodule(loaded.spec.language_model)
        self._memory = self._make_memory()
        self._recordings: dict[tuple[int, ...], _Recording] = {}
        self._sights: Counter[tuple[int, ...]] = Counter()
        self._pool = torch.cuda.graph_pool_handle() if self._record else None
        self._opened = 0
        self._plan = lru_cache(maxsize=256)(self._make_plan)

    def groups(self, count: int) -> list[int]:
        """Return powers of two, the largest first: few numbers of images make few shapes."""
        found: list[int] = []
        while count:
            found.append(min(IMAGES_AT_ONCE, 1 << (count.bit_length() - 1)))
            count -= found[-1]
        return found

    def warm_up(self, probes: Sequence[Branch]) -> None:
        """Record the opening of a scan of every size, and the steps of up to four boxes; without a GPU nothing."""
        if not self._record:
            return
        processor = self.loaded.processor
        side = processor.factor
        for tokens in range(VISUAL_STEP - 1, processor.max_pixels // side**2 + 1, VISUAL_STEP):
            self.open([torch.zeros(side, side * tokens, 3, dtype=torch.uint8)], [probes])
        for count in (1, 3):
            state, _ = self.open([torch.zeros(side, side, 3, dtype=torch.uint8)], [probes])
            grammars = [BoxGrammar(self.encoder) for _ in range(count)]
            self.extend(state, [[self.encoder.boxes(name) for name in CATEGORIES[:count]]], [grammars])

    @torch.inference_mode()
    def open(self, frames: Sequence[Tensor], branches: Sequence[Sequence[Branch]]) -> tuple[PackedState, list[Tensor]]:
        """Encode up to `IMAGES_AT_ONCE` images with their first branches in one pass; see `TreeDecoder.open`."""
        if len(frames) > IMAGES_AT_ONCE:
            raise ValueError(f"{len(frames)} images at once; there is memory for {IMAGES_AT_ONCE}")
        self._opened += 1
        # A row without a branch would leave the kernel without queries.
        asked = tuple(tuple(row) or (Branch((self.encoder.end_id,)),) for row in branches)
        processor = self.loaded.processor
        grids_hw = tuple(processor.grid_hw((frame.shape[1], frame.shape[0])) for frame in frames)
        plan = self._plan(grids_hw, asked)
        on_device = [frame.to(self.loaded.device, non_blocking=True) for frame in frames]
        patches, _ = processor.patches_of(on_device, self._dtype)
        missing = int(plan.grid_thw.prod(dim=1).sum()) - patches.shape[0]
        patches = torch.nn.functional.pad(patches, (0, 0, 0, missing))
        logits = self._run(plan, patches)
        state = PackedState(self._opened, plan.part_starts, plan.branch_starts)
        parts = logits.split([len(row) for row in asked])
        parts = [part[: len(row)].to(torch.float32, copy=True) for part, row in zip(parts, branches, strict=True)]
        return state, parts

    @torch.inference_mode()
    def extend(
        self, state: PackedState, branches: Sequence[Sequence[Branch]], grammars: Sequence[Sequence[Grammar]]
    ) -> None:
        """Open further branches behind the prefixes and decode them, greedily, until every grammar is done.

        Args:
            state: Of the newest `open`.
            branches: For each image of the state its new branches, possibly none.
            grammars: One for each branch; they take up the answers.
        """
        if state.number != self._opened:
            raise ValueError("these trees are closed: others were opened since")
        waiting = [
            (image, branch, grammar)
            for image, (row, row_grammars) in enumerate(zip(branches, grammars, strict=True))
            for branch, grammar in zip(row, row_grammars, strict=True)
        ]
        if not waiting:
            return
        slots = _up(max(len(branch.prompt) + grammar.longest for _, branch, grammar in waiting), BRANCH_STEP)
        at_once = max(1, BRANCH_TOKENS // slots)
        for at in range(0, len(waiting), at_once):
            self._extend(state, waiting[at : at + at_once], slots)

    def _extend(self, state: PackedState, branches: Sequence[tuple[int, Branch, Grammar]], slots: int) -> None:
        tokens = [list(branch.prompt) for _, branch, _ in branches]
        past = [0] * len(branches)
        while any(tokens):
            logits = self._step(state, [image for image, _, _ in branches], tokens, past, slots)
            fed = [at for at, step in enumerate(tokens) if step]
            allowed = [branches[at][2].allowed for at in fed]
            everyone = len(fed) == len(branches)
            chosen = choose(logits[: len(branches)] if everyone else logits[fed], allowed)
            past = [count + len(step) for count, step in zip(past, tokens, strict=True)]
            tokens = [[] for _ in branches]
            for at, token in zip(fed, chosen, strict=True):
                grammar = branches[at][2]
                grammar.push(token)
                if not grammar.done:
                    tokens[at] = [token]

    def _make_plan(self, grids_hw: tuple[tuple[int, int], ...], asked: tuple[tuple[Branch, ...], ...]) -> _Plan:
        """Make the plan of images with so many rows and columns of visual tokens, which are asked these branches."""
        rows = [
            build_row(*self.encoder.prefix(height * width), (height, width), row)
            for (height, width), row in zip(grids_hw, asked, strict=True)
        ]
        lengths = [int((row.segment_ids == PREFIX_SEGMENT).sum()) for row in rows]
        parts = part_starts([0, *itertools.accumulate(lengths)])
        starts = tuple(row.next_position for row in rows)
        visual = sum(height * width for height, width in grids_hw)
        missing = _up(visual + 1, VISUAL_STEP * len(rows)) - visual
        rows.append(_filling(missing, self.encoder.image_pad_id))
        grids_hw = (*grids_hw, (1, missing))
        packed = pack_rows(rows)
        merge, device = self.loaded.processor.merge_size, self.loaded.device
        grid_thw = torch.tensor([(1, merge * height, merge * width) for height, width in grids_hw])
        tower, numbers = tower_inputs(self.loaded.base, grid_thw)
        layout = packed.layout
        # Lengths that hold for every plan of its shape; kernels take any upper bound.
        numbers["max_seqlen"] = patches = int(grid_thw.prod(dim=1).sum())
        if WINDOW_STARTS in tower:
            # Windows are at most 4 x 4 tokens; of h x w tokens there are ceil(h / 4) ceil(w / 4) <= h w / 4 + 1.
            most = patches // merge**2 // 4 + len(grids_hw)
            tower[WINDOW_STARTS] = _filled(tower[WINDOW_STARTS], most + 1)
        family, branch = (_up(length, PROMPT_STEP) for length in (layout.longest_family, layout.longest_branch))
        layout = TreeLayout(*layout.starts, layout.num_prefix, layout.num_prefix, family, branch)
        return _Plan(
            grid_thw=grid_thw,
            tower={name: send(tensor, device) for name, tensor in tower.items()},
            tower_numbers=numbers,
            input_ids=send(packed.input_ids, device),
            position_ids=send(packed.position_ids, device),
            visual=send(packed.visual, device),
            ends=send(packed.layout.num_prefix + packed.layout.branch_starts[1:].long() - 1, device),
            layout=layout.to(device, non_blocking=True),
            part_starts=send(_filled(torch.tensor(parts), IMAGES_AT_ONCE * PREFIX_PARTS + 1), device),
            branch_starts=starts,
        )

    def _run(self, plan: _Plan, patches: Tensor) -> Tensor:
        recording = self._recordings.get(plan.shape)
        if recording is None:
            self._sights[plan.shape] += 1
            is_new = len(plan.branch_starts) > 1 and self._sights[plan.shape] < RECORD_AFTER
            if not self._record or is_new or len(self._recordings) >= MAX_RECORDINGS:
                return self._read(plan, patches)
            own, pixels = plan.copied(), patches.clone()
            recording = _Recording([pixels, *own.tensors], lambda: self._read(own, pixels), self._pool)
            self._recordings[plan.shape] = recording
        return recording.run([patches, *plan.tensors])

    def _read(self, plan: _Plan, patches: Tensor) -> Tensor:
        """Return (branches, vocabulary) logits behind all branches of an opening."""
        base = self.loaded.base
        seen, deeper = see(base, patches, plan.grid_thw, plan.tower, plan.tower_numbers)
        hidden = self._text.embed_tokens(plan.input_ids)
        hidden = hidden.index_copy(1, plan.visual, seen.to(hidden.dtype)[None])
        places = self._text.rotary_emb(hidden, plan.position_ids)
        for number, (layer, memory) in enumerate(zip(self._text.layers, self._memory, strict=True)):
            hidden = layer(hidden, attention_mask=None, position_embeddings=places, memory=memory, trees=plan.layout)
            if number < len(deeper):
                hidden = hidden.index_add(1, plan.visual, deeper[number].to(hidden.dtype)[None])
        return base.lm_head(self._text.norm(hidden[0, plan.ends]))

    def _step(
        self,
        state: PackedState,
        images: Sequence[int],
        tokens: Sequence[Sequence[int]],
        past: Sequence[int],
        slots: int,
    ) -> Tensor:
        """Run the next tokens of some branches. Returns (branches or more, vocabulary) float32, behind each one's last.

        A branch without new tokens goes along, unread; what it writes lies behind its own end.
        """
        longest = max(map(len, tokens))
        new = 1 if longest == 1 else _up(longest, PROMPT_STEP)
        count = max(2, 1 << (len(tokens) - 1).bit_length())
        ids, begun, first, ends = [], [], [], []
        for at, (image, step, done) in enumerate(zip(images, tokens, past, strict=True)):
            ids += [*step, *[self.encoder.pad_id] * (new - len(step))]
            begun.append(min(done, slots - new))
            first.append(state.branch_starts[image] + begun[-1])
            ends.append(at * new + max(len(step) - 1, 0))
        unused = count - len(tokens)
        ids += [self.encoder.pad_id] * (unused * new)
        rows = (begun, first, ends, images)
        fed = torch.tensor([*ids, *(value for row in rows for value in (*row, *[0] * unused))])
        inputs = [send(fed, self.loaded.device), state.part_starts]
        if not (self._record and new <= PROMPT_STEP):
            return self._advance(inputs, count, slots)
        recording = self._recordings.get((count, new, slots))
        if recording is None:
            recording = _Recording(inputs, lambda: self._advance(inputs, count, slots), self._pool)
            self._recordings[(count, new, slots)] = recording
        return recording.run(inputs)

    def _advance(self, inputs: list[Tensor], count: int, slots: int) -> Tensor:
        """Run what `_step` has made: token ids; each branch's past, first position, last place and image."""
        fed, parts = inputs
        ids, (past, first, ends, images) = fed[: -4 * count], fed[-4 * count :].view(4, count)
        places = first[:, None] + torch.arange(len(ids) // count, device=fed.device)
        hidden = self._text.embed_tokens(ids[None])
        rotary = self._text.rotary_emb(hidden, places.flatten().expand(3, 1, -1))
        step = StepLayout(images, parts, past, slots)
        for layer, memory in zip(self._text.layers, self._memory, strict=True):
            hidden = layer(hidden, attention_mask=None, position_embeddings=rotary, memory=memory, step=step)
        return self.loaded.base.lm_head(self._text.norm(hidden[0, ends])).float()

    def _make_memory(self) -> list[LayerMemory]:
        processor, config = self.loaded.processor, self._text.config
        visual = processor.max_pixels // processor.factor**2
        prefix, _ = self.encoder.prefix(visual)
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

        def room(tokens: int) -> Tensor:
            return torch.zeros(tokens, config.num_key_value_heads, width, dtype=self._dtype, device=self.loaded.device)

        tokens = IMAGES_AT_ONCE * (len(prefix) + VISUAL_STEP)
        return [
            LayerMemory(room(tokens), room(tokens), room(BRANCH_TOKENS), room(BRANCH_TOKENS)) for _ in self._text.layers
        ]


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


def _filled(starts: Tensor, length: int) -> Tensor:
    """Segment starts as int32, as many as wanted: empty segments behind the last one."""
    starts = starts.to(torch.int32)
    return torch.cat([starts, starts[-1:].expand(length - len(starts))])


def _filling(num_visual: int, image_pad_id: int) -> TreeRow:
    """An image that nobody asks about, one token high."""
    nothing = torch.zeros(0, dtype=torch.int64)
    return TreeRow(
        input_ids=torch.full((num_visual,), image_pad_id),
        labels=torch.full((num_visual,), IGNORE_INDEX),
        segment_ids=torch.full((num_visual,), PREFIX_SEGMENT),
        position_ids=torch.zeros(3, num_visual, dtype=torch.int64),
        branch_ends=nothing,
        visual=slice(0, num_visual),
    )
