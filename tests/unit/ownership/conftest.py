from ..kit.fixtures import folder as folder
from ..kit.fixtures import impatient as impatient
