// A slider, or a click on a frame, shows that frame for all pictures of a unit.

for (const strip of document.querySelectorAll("section.strip")) {
  const slider = strip.querySelector(".flip");
  const said = strip.querySelector("output");
  const show = () => {
    for (const row of strip.querySelectorAll(".row")) {
      row.querySelectorAll("li").forEach((item, i) => {
        const now = i === Number(slider.value);
        item.classList.toggle("now", now);
        item.querySelector("button").setAttribute("aria-pressed", String(now));
        if (!now) return;
        row.querySelector(".large img").src = item.querySelector("img").src;
        said.textContent = item.querySelector("span").textContent;
      });
    }
  };
  slider.addEventListener("input", show);
  for (const button of strip.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      slider.value = button.dataset.frame;
      show();
    });
  }
  show();
}
document.documentElement.dataset.ready = "yes";
