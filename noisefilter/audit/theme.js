try {
  const theme = localStorage.getItem("noisefilter.theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch (error) { /* no storage: the system's theme stays */ }
