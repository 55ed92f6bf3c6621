"""Tasks, one a file: how a data set's rows become batches, and how a model is judged on them.

A file says with `READS` which kind of rows it takes and with `METRIC` how its predictions are scored by default, and
defines

- `examples(rows, processor, *, options)`: training and calibration features, made when they are asked for;
- `collate(features, processor)`: a padded batch for `model(**batch)`, labels -100 where nothing is scored;
- `texts(row)`: the strings of a row, to train a tiny tokenizer on;
- `predict(model, processor, rows, start, batch_size, *, options)`: the prediction rows, from item `start` on.

`examples` and `predict` share one set of options. A `predict` that also names `shown` is given training rows to show
before the question, one that names `limit` cuts its own data. Models come in eval mode and on their device.
"""
