"""What a training run is told. Parsed before anything heavy is imported, so that a mistake answers at once."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tools.embedding import EmbeddingOptions


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Lora(_Section):
    """The adapter: low-rank matrices on every linear layer (Hu et al. 2021, arXiv 2106.09685)."""

    rank: int = Field(8, ge=1, le=256)
    alpha: int = Field(32, ge=1, description="Scale; the update is multiplied by alpha / rank.")


class Supervised(_Section):
    """The start on corrections: what reinforcement goes on from and, by itself, its control."""

    epochs: int = Field(6, ge=1, description="Enough to learn the corrections by heart.")
    learning_rate: float = Field(1e-3, gt=0)
    batch_size: int = Field(8, ge=1)
    max_tokens: int = Field(1_024, ge=64, description="Prompt and answer; longer examples are cut.")


class Grpo(_Section):
    """Group-relative policy optimisation: no length normalisation (`dr_grpo`), clip-higher, no KL term."""

    steps: int = Field(52, ge=1)
    prompts_per_step: int = Field(
        4, ge=1, description="Few, and many steps: they learn faster than the reverse."
    )
    generations: int = Field(8, ge=2, description="Answers sampled per prompt: the group.")
    rehearsed: int = Field(
        4, ge=0, description="Demonstrations imitated again in each step, lest they be forgotten."
    )
    replayed: int = Field(
        4, ge=0, description="Rare right answers of its own, sampled earlier, imitated again in each step."
    )
    learning_rate: float = Field(2e-4, gt=0, description="Constant after two warm-up steps.")
    temperature: float = Field(
        1.15, gt=0, description="Above 1, so that a start that knows its corrections by heart explores."
    )
    epsilon_low: float = Field(0.2, gt=0, lt=1)
    epsilon_high: float = Field(0.28, gt=0, description="Clip-higher (DAPO, arXiv 2503.14476).")
    save_every: int = Field(10, ge=1, description="Steps between checkpoints that a killed run resumes from.")


class Options(_Section):
    """How to learn: what a user may set in `flywheel.toml` under `[trainer]`."""

    threads: int | None = Field(None, ge=1, description="CPU threads; None: all cores.")
    device: str = Field("auto", pattern="^(auto|cpu|cuda)$", description="auto: the GPU where there is one.")
    lora: Lora = Lora()
    supervised: Supervised = Supervised()
    grpo: Grpo = Grpo()


class TrainerConfig(Options):
    """One run: what to learn from, where to write, and how."""

    agent: Path = Field(description="Folder of the agent's manifest.")
    knowledge: Path = Field(description="Knowledge file that the agent retrieves from.")
    knowledge_library: Path | None = Field(
        None, description="Folder of added knowledge, whose active version is retrieved from as well."
    )
    knowledge_embedding: EmbeddingOptions | None = Field(
        None, description="By which model items are found by meaning, too; None: by words alone."
    )
    knowledge_url: str | None = Field(None, description="Qdrant server; None: embedded in the process.")
    databases: tuple[Path, ...] = Field(
        min_length=1, description="First is production; SQL must match on all."
    )
    base_model: Path = Field(description="Folder of the base model (safetensors and tokenizer).")
    dataset: Path = Field(description="Curated samples, as `flywheel curate` writes them.")
    run_dir: Path = Field(
        description="Everything that the run writes; a run that was killed resumes from here."
    )
    checkpoints: Path = Field(description="Where finished policies are published, one folder each.")
    seed: int = 0


class Contender(_Section):
    """`policy` None is the base model; `shots` are worked examples from the training data in front of each question."""

    name: str
    policy: str | None = None
    shots: int = Field(0, ge=0, le=32)


class ContestConfig(_Section):
    """Which contenders on which tasks; reports go to `reports/<name>.json`. A report that is there is kept."""

    trainer: TrainerConfig
    tasks: Path
    reports: Path
    contenders: tuple[Contender, ...]
