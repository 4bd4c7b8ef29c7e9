"""A context within another: one seed of a study."""

from collections.abc import Callable

from alignlab.core.types import Context, Endpoint


class Seeded:
    """The context of one seed: its own folder and seed, all else as given."""

    def __init__(
        self, ctx: Context, seed: int, name: str = "", endpoint: Callable[[str], Endpoint] | None = None
    ) -> None:
        """`name` of the folder, `seed-SEED` by default; `endpoint` replaces who answers for a role."""
        self.seed, self.folder = seed, ctx.folder / (name or f"seed-{seed}")
        self.model, self.dataset, self.limit = ctx.model, ctx.dataset, ctx.limit
        self.stage, self.endpoint = ctx.stage, endpoint or ctx.endpoint
