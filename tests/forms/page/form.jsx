// The form of `window.PAGE.document` ({json_schema, ui_schema}), and what stands in it: at first and after each of
// `window.PAGE.steps`, in <script id="report">.
import Form from '@rjsf/core';
import validator from '@rjsf/validator-ajv8';
import React from 'react';
import { createRoot } from 'react-dom/client';
import { flushSync } from 'react-dom';

// The platform's own widget for tools; what a page without it would show is an error.
const ToolSelect = ({ id, options }) => (
  <div id={id} className="tool-select" data-options={JSON.stringify(options)}>Choose tools</div>
);

const { document: form, steps } = window.PAGE;
const submitted = [];
const refused = [];
const element = (
  <Form
    schema={form.json_schema}
    uiSchema={form.ui_schema}
    validator={validator}
    widgets={{ toolSelect: ToolSelect }}
    onSubmit={({ formData }) => submitted.push(formData)}
    onError={(errors) => refused.push(...errors.map(({ property, message }) => `${property} ${message}`))}
    noHtml5Validate
  />
);

const visible = (node) => node.type !== 'hidden' && node.getClientRects().length > 0;
const labelOf = (node) => {
  const label = document.querySelector(`label[for="${CSS.escape(node.id)}"]`) ?? node.closest('label');
  return label && label.textContent.trim();
};

function fieldOf(node) {
  const field = { tag: node.tagName.toLowerCase(), type: node.type, label: labelOf(node), value: node.value };
  if (node.type === 'checkbox') field.value = node.checked;
  if (node.tagName === 'SELECT') field.options = [...node.options].map((option) => option.textContent).filter(Boolean);
  if (node.dataset.options) field.offered = JSON.parse(node.dataset.options);
  for (const limit of ['min', 'max', 'step']) if (node[limit]) field[limit] = Number(node[limit]);
  return field;
}

function snapshot() {
  const nodes = [...document.querySelectorAll('#form :is(input, select, textarea, .tool-select)')].filter(visible);
  return {
    fields: Object.fromEntries(nodes.map((node) => [node.id.replace(/^root_/, ''), fieldOf(node)])),
    complaints: [...document.querySelectorAll('.unsupported-field, .error-detail li')].map((node) => node.textContent),
    refused: refused.splice(0),
    submitted: submitted.splice(0),
  };
}

// A user's hand: React hears of a value only when it is set behind the back of its own setter.
const acts = {
  click: (node) => node.click(),
  choose(node, text) {
    node.value = [...node.options].find((option) => option.textContent === text).value;
    node.dispatchEvent(new Event('change', { bubbles: true }));
  },
  type(node, text) {
    Object.getOwnPropertyDescriptor(Object.getPrototypeOf(node), 'value').set.call(node, text);
    node.dispatchEvent(new Event('input', { bubbles: true }));
  },
};

async function report() {
  const root = createRoot(document.getElementById('form'));
  flushSync(() => root.render(element));
  const snapshots = [snapshot()];
  for (const [act, name, value] of steps) {
    const node = name === 'submit' ? document.querySelector('button[type=submit]') : document.getElementById(`root_${name}`);
    if (!node) throw new Error(`nothing on the page is named ${name}`);
    acts[act](node, value);
    await new Promise((resolve) => setTimeout(resolve, 50)); // React draws after the event
    snapshots.push(snapshot());
  }
  return { snapshots };
}

report()
  .catch((error) => ({ error: String(error) }))
  .then((result) => {
    document.getElementById('report').textContent = JSON.stringify(result).replaceAll('<', '\\u003c');
  });
