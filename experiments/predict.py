"""Let an artifact say what it makes of records in files.

python experiments/predict.py artifact=<folder> input=<records.npy>
python experiments/predict.py artifact=<folder> input=<image or folder of images> out=<file.csv>
python experiments/predict.py artifact=<folder> input=<table.csv>
python experiments/predict.py artifact=<folder> text='To be'        the next token

A row for each record goes to standard output, and to out=<file.csv> as well: the likeliest class or
token and its probability, or the numbers of a regression. Records are raw, as export.py says. Of a
.txt file each line is a record; a .csv file has the columns of the table that was trained on, by
name. No code of the model is needed. Damage to an artifact is found before anything of it is used;
still, like any program, it is for those who trust where it came from.
"""

import csv
import dataclasses
import sys
from pathlib import Path

import frame

from functorch_kit.config import ConfigError, setting


@dataclasses.dataclass
class Prediction:
    artifact: str | None = setting(None, "folder of the artifact", needed="<folder>")
    input: str | None = setting(
        None, "a .npy, .csv, .tsv, .txt or image file, or a folder of images"
    )
    text: str | None = setting(None, "a text to go on with, in place of input")
    out: str | None = setting(None, "a .csv file to write the rows to; null: none")
    batch_size: int = setting(64, "records that are computed at once", least=1, most=65_536)
    most_pixels: int = setting(1 << 24, "of an image; more are refused", least=1, most=1 << 30)
    overwrite: bool = setting(False, "whether out may be there, and is then lost")


def predict(config: Prediction, job: frame.Job) -> None:
    if (config.input is None) == (config.text is None):
        raise ConfigError(
            "input is missing: give input=<file or folder>, or text='…', and not both"
        )
    out = None if config.out is None else Path(config.out)
    if out is not None and out.exists() and not config.overwrite:
        raise ConfigError(
            f"out {str(out)!r} is there already: set overwrite=true, or choose another"
        )
    from functorch_kit import export, program

    program.use_cache()
    artifact = export.load(Path(config.artifact or ""))
    inputs, vocabulary = artifact.manifest.records, artifact.vocabulary
    if config.text is not None:
        records = iter([export.text_record("1", config.text, inputs, vocabulary)])
    else:
        path = Path(config.input or "")
        records = export.read_records(path, inputs, vocabulary, most_pixels=config.most_pixels)
    header = export.header(artifact)
    rows = export.predictions(artifact, records, batch_size=config.batch_size)
    if out is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows([header, *rows])
        return
    draft = out.with_name(f".{out.name}.part")
    try:
        with draft.open("w", encoding="utf-8", newline="") as file:
            writers = [csv.writer(each, lineterminator="\n") for each in (sys.stdout, file)]
            for row in (header, *rows):
                for writer in writers:
                    writer.writerow(row)
        draft.replace(out)
    except OSError as error:
        raise ConfigError(f"out {str(out)!r} cannot be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


if __name__ == "__main__":
    frame.run(predict, Prediction, "evaluate")
