// Photo below, accentuation above: a slider lets the photo through.

for (const card of document.querySelectorAll("figure.card")) {
  const slider = card.querySelector(".opacity");
  const only = card.querySelector(".only");
  const [whole, through] = card.querySelectorAll(".over");
  const show = () => {
    const masked = Boolean(only?.checked);
    whole.hidden = masked;
    if (through) through.hidden = !masked;
    (masked ? through : whole).style.opacity = slider.value / 100;
  };
  slider.addEventListener("input", show);
  only?.addEventListener("change", show);
  show();
}
document.documentElement.dataset.ready = "yes";
