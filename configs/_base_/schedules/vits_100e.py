# The ViT-S recipe over 100 epochs: patch-size study and ablation.
_base_ = ['./vits_500e.py']
epochs = 100
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=epochs, T_max=epochs - _base_.warmup_epochs)
param_scheduler[2].update(end=epochs, T_max=epochs)
train_cfg = dict(max_epochs=epochs)
