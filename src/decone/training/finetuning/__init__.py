"""Fine-tuning a pretrained model of transformers on a task: settings, batches, the loop."""
