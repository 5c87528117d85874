// Sort rows by a column; cells without a number are last in both directions.

const body = document.querySelector("tbody");
const heads = [...document.querySelectorAll("thead th")];

function compared(a, b, column, down) {
  const [one, other] = [a, b].map((row) => row.children[column].dataset.value);
  if (one === "" || other === "") return (one === "") - (other === "");
  const [first, second] = [one, other].map(Number);
  const words = column === 0 || Number.isNaN(first) || Number.isNaN(second);
  const order = words ? one.localeCompare(other) : first === second ? 0 : first - second;
  return down ? -order : order;
}

heads.forEach((head, column) => {
  head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...[...body.children].sort((a, b) => compared(a, b, column, down)));
    document.getElementById("sorted").textContent = `Sorted by ${head.textContent.trim()}, ${down ? "largest" : "smallest"} first.`;
  });
});
document.documentElement.dataset.ready = "yes";
