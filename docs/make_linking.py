"""Make the figures of docs/linking.md: those of xinc demo --only linked, and of examples/link_faces.py.

python docs/make_linking.py        (about ten minutes on an idle core)
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from xinc_captum.cli.main import Part, demo_command

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"

with tempfile.TemporaryDirectory() as name:
    made = Path(name)
    demo_command(made, [Part.linked], 0)
    units = json.loads((made / "linked" / "units" / "manifest.json").read_text())["units"]
    first, *_, least = [f"unit_{one['unit']}.png" for one in units]
    figures = {
        "linked_audit": made / "linked" / "link" / "audit.png",
        "linked_units": made / "linked" / "link" / "units.png",
        "linked_flipped": made / "linked" / "another_answer" / "counterfactuals.png",
    }
    figures |= {"linked_holds": made / "linked" / "units" / first, "linked_least": made / "linked" / "units" / least}
    subprocess.run([sys.executable, ROOT / "examples" / "link_faces.py"], cwd=made, check=True)
    figures |= {"linked_faces_audit": made / "faces_audit.png", "linked_faces_unit": made / "faces_unit.png"}
    for target, source in figures.items():
        few = Image.open(source).convert("RGB").quantize(200, dither=Image.Dither.NONE)  # a third of the bytes
        few.save(PICTURES / f"{target}.png", optimize=True)
        print(target)
