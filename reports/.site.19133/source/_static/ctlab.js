document.addEventListener('DOMContentLoaded', () => {
  const cells = [...document.querySelectorAll('details.hide')];
  const title = document.querySelector('article h1');
  if (!cells.length || !title) return;
  const button = Object.assign(document.createElement('button'), { className: 'ctlab-all', type: 'button' });
  const label = () => { button.textContent = cells.every(c => c.open) ? 'Hide all code' : 'Show all code'; };
  button.addEventListener('click', () => { const open = !cells.every(c => c.open); cells.forEach(c => { c.open = open; }); label(); });
  cells.forEach(c => c.addEventListener('toggle', label));
  label();
  title.before(button);
});
