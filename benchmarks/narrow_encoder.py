"""Build an English and Spanish encoder apart from MiniLM: narrower, shallower, cased, with another tokenizer.

    REGRAFT_DATA=... python benchmarks/narrow_encoder.py --out narrow-encoder

4 layers, 256 wide. A million words are too few to learn language from by masking them, so it learns from a model that
has nothing to do with MiniLM: with a fifth of its tokens masked it predicts, for each token, what SmolLM2 makes of that
token and of the next one in its middle layer (both ways of looking, where SmolLM2 looks back only). Its embeddings
start from SmolLM2's, brought to 256 dimensions by their principal components. The texts are the WikiNEuRal validation
files without their tags, XNLI and PAWS-X: no sentence of the test files that the benchmarks score on.
An hour on one CPU core; one seed gives one encoder.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import torch
from _common import data_folder, smollm2
from torch.nn.functional import mse_loss
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel, get_linear_schedule_with_warmup

from regraft.files.texts import read_texts

WIDTH, DEPTH, BLOCK, BATCH = 256, 4, 128, 32
TEACHER_LAYER = 14
MASKED = 0.2


def texts() -> list[str]:
    folder = data_folder()
    found = []
    for language in ("en", "es"):
        found += read_texts(str(folder / f"wikineural/{language}/val.conllu"), "tokens")
    for name in ("xnli/en/dev.tsv", "xnli/en/test.tsv", "pawsx/en/dev.tsv", "pawsx/en/test.tsv"):
        with (folder / name).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                found += [value for column, value in row.items() if column not in ("id", "label")]
    return list(dict.fromkeys(found))


def principal(table: torch.Tensor, std: float) -> torch.Tensor:
    centred = table - table.mean(0)
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -WIDTH:]
    projected = centred @ directions
    return projected * (std / projected.std())


@torch.inference_mode()
def targets(model: torch.nn.Module, blocks: torch.Tensor, start: int) -> torch.Tensor:
    """(blocks, BLOCK, width) standardised hidden states of the middle layer, in half precision."""
    out = torch.empty(*blocks.shape, model.config.hidden_size, dtype=torch.float16)
    first = torch.full((BATCH, 1), start)
    for i in tqdm(range(0, len(blocks), BATCH), desc="SmolLM2"):
        ids = blocks[i : i + BATCH]
        out[i : i + BATCH] = model(torch.cat([first[: len(ids)], ids], 1)).last_hidden_state[:, 1:]
    some = out[:: max(1, len(out) // 500)].float().flatten(0, 1)
    return out.sub_(some.mean(0).half()).div_(some.std(0).half())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-texts", type=int, default=None)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    began = time.perf_counter()

    source = smollm2()
    tokenizer = AutoTokenizer.from_pretrained(source, add_prefix_space=True)
    tokenizer.add_special_tokens({"mask_token": "<mask>", "pad_token": "<pad>"})
    tokenizer.model_max_length = 512
    lines = texts()
    order = torch.randperm(len(lines)).tolist()[: args.max_texts]
    stream = [i for n in order for i in tokenizer(lines[n], add_special_tokens=False)["input_ids"]]
    blocks = torch.tensor(stream[: len(stream) // BLOCK * BLOCK]).view(-1, BLOCK)
    print(f"{len(order):,} texts, {len(stream):,} tokens")

    teacher = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).model
    teacher.layers = teacher.layers[:TEACHER_LAYER]
    teacher.norm = torch.nn.Identity()
    wanted = targets(teacher, blocks, tokenizer.eos_token_id)

    torch.manual_seed(args.seed)
    model = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            num_hidden_layers=DEPTH,
            num_attention_heads=4,
            intermediate_size=4 * WIDTH,
            max_position_embeddings=512,
            type_vocab_size=1,
            pad_token_id=tokenizer.pad_token_id,
            attention_probs_dropout_prob=0.0,
            hidden_dropout_prob=0.0,
        ),
        add_pooling_layer=False,
    )
    table = teacher.embed_tokens.weight.float()
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[: len(table)] = principal(table, std=0.05)
    heads = torch.nn.Linear(WIDTH, 2 * teacher.config.hidden_size)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01, fused=True)
    held_out, rows = torch.randperm(len(blocks)).split([BATCH, len(blocks) - BATCH])
    steps = args.epochs * (len(rows) // BATCH)
    schedule = get_linear_schedule_with_warmup(optimizer, 100, steps)

    def loss_on(batch: torch.Tensor) -> torch.Tensor:
        ids, hidden = blocks[batch], wanted[batch].float()
        masked = torch.rand(ids.shape) < MASKED
        seen = torch.where(masked, tokenizer.mask_token_id, ids)
        with torch.autocast("cpu", torch.bfloat16):
            own, following = heads(model(seen).last_hidden_state).float().chunk(2, -1)
        return mse_loss(own, hidden) + mse_loss(following[:, :-1], hidden[:, 1:])

    for epoch in range(args.epochs):
        batches = rows[torch.randperm(len(rows))].split(BATCH)[: len(rows) // BATCH]
        for batch in (bar := tqdm(batches, desc=f"epoch {epoch + 1}")):
            loss = loss_on(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            bar.set_postfix(loss=f"{loss.item():.3f}")
        with torch.no_grad():
            print(
                f"epoch {epoch + 1}: held out {loss_on(held_out).item():.3f} (2 would be knowing nothing)", flush=True
            )
        model.save_pretrained(args.out)
        tokenizer.save_pretrained(args.out)
    print(f"{(time.perf_counter() - began) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
