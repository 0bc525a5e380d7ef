"""Scrub a data set into audited shards that training reads.

usage: python scripts/scrub.py source=FORMAT source.path=PATH output=DIR [policy=NAME] [KEY=VALUE]

examples:
  python scripts/scrub.py source=folder source.path=photos output=data/photos policy=photos
  python scripts/scrub.py source=easy_vqa source.split=test output=data/easy-vqa-test workers=2

A record that cannot be cleaned is left out, named on stderr by its number and reason, and counted.
Exit status: 0 all records are in the shards, 1 some were left out, 2 nothing was done.
"""

import sys
from pathlib import Path

CONF = Path(__file__).resolve().parent.parent / "conf"


def main(arguments: list[str]) -> int:
    """Compose the configuration, scrub, print the counts."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__, end="")
        for group in ("source", "policy"):
            print(f"{group}: {', '.join(sorted(path.stem for path in (CONF / group).glob('*')))}")
        return 0 if arguments else 2

    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from mm.data.shards import write_shards
    from mm.errors import MMError
    from mm.privacy import PrivacyError
    from mm.privacy.scrub import print_refusal

    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("scrub", arguments)
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise MMError(f"say what {missing[0]} is: {missing[0]}=..., see --help")
        report = write_shards(
            instantiate(config.source),
            config.output,
            instantiate(config.policy),
            workers=config.workers,
            max_shard_bytes=config.max_shard_bytes,
            progress=sys.stderr,
            on_refusal=print_refusal,
        )
    except (MMError, PrivacyError, HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ if isinstance(error.__cause__, MMError | PrivacyError) else error
        print("scrub: " + " ".join(str(cause).split()), file=sys.stderr)
        return 2
    counts = {"quarantined": report.quarantined, "metadata": report.metadata, "text": report.text}
    print(f"{config.output}: {report.samples} samples in {report.seconds:.1f} s")
    for name, found in counts.items():
        print(
            f"  {name}: {', '.join(f'{n} {kind}' for kind, n in sorted(found.items())) or 'none'}"
        )
    return 1 if report.quarantined else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
