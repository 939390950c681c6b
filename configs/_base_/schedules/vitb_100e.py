# ViT-B recipe: 100 epochs at total batch 256 (supplement, Tables 1-3).
_base_ = ['./vits_100e.py']
optim_wrapper = dict(optimizer=dict(lr=7.5e-4), clip_grad=dict(max_norm=0.3))
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(eta_min=2e-6)
default_hooks = dict(
    method_schedule=dict(linear=dict(teacher_temperature=dict(epochs=50))),
    last_layer_freeze=dict(epochs=3),
)
