"""Pre-training algorithms, registered in mmpretrain's MODELS."""

from s3pt_mm.method.algorithms.cribo import CrIBo
from s3pt_mm.method.algorithms.dino import DINO
from s3pt_mm.method.algorithms.s3pt import S3PT
from s3pt_mm.method.algorithms.teacher_student import TeacherStudent

__all__ = ['CrIBo', 'DINO', 'S3PT', 'TeacherStudent']
