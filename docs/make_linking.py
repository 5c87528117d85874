"""The pictures of docs/linking.md: those of xinc demo --only linked, and of examples/link_faces.py.

python docs/make_linking.py        (about ten minutes on an idle core)
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from xinc_captum.cli.demo import Part, demo_command

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"

with tempfile.TemporaryDirectory() as name:
    made = Path(name)
    demo_command(made, [Part.linked], 0)
    sweeps = sorted((made / "linked" / "units").glob("unit_*.png"), key=lambda path: int(path.stem.split("_")[1]))
    wanted = {
        "linked_audit": made / "linked" / "link" / "audit.png",
        "linked_units": made / "linked" / "link" / "units.png",
        "linked_flipped": made / "linked" / "another_answer" / "counterfactuals.png",
    }
    wanted |= {f"linked_{path.stem}": path for path in sweeps}
    subprocess.run([sys.executable, ROOT / "examples" / "link_faces.py"], cwd=made, check=True)
    wanted |= {"linked_faces_audit": made / "faces_audit.png", "linked_faces_unit": made / "faces_unit.png"}
    for target, source in wanted.items():
        shutil.copy(source, PICTURES / f"{target}.png")
        print(target)
