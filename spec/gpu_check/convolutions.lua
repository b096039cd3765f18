-- The convolutions of ResNet-18 at 128x128: channels in and out, kernel, stride, side of the input, and how many of them there are.
return {
  { 3, 64, 7, 2, 128, 1 }, { 64, 64, 3, 1, 32, 4 }, { 64, 128, 3, 2, 32, 1 }, { 64, 128, 1, 2, 32, 1 }, { 128, 128, 3, 1, 16, 3 },
  { 128, 256, 3, 2, 16, 1 }, { 128, 256, 1, 2, 16, 1 }, { 256, 256, 3, 1, 8, 3 }, { 256, 512, 3, 2, 8, 1 }, { 256, 512, 1, 2, 8, 1 },
  { 512, 512, 3, 1, 4, 3 },
}
