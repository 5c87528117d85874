// A slider sets the opacity of the accentuation over the photo; a mask restricts it to some pixels.

const shared = document.querySelector("img.photo");
for (const card of document.querySelectorAll("figure.card")) {
  const slider = card.querySelector(".opacity");
  const only = card.querySelector(".only");
  const over = card.querySelector(".over");
  const photo = card.querySelector(".photo");
  if (!photo.hasAttribute("src")) photo.src = shared.src; // a shared photo is stored once
  const show = () => {
    over.style.opacity = slider.value / 100;
    const mask = only?.checked ? `url("${over.dataset.mask}") 0 0 / 100% 100%` : "none";
    over.style.webkitMask = mask; // for browsers before the end of 2023
    over.style.mask = mask;
  };
  slider.addEventListener("input", show);
  only?.addEventListener("change", show);
  show();
}
document.documentElement.dataset.ready = "yes";
