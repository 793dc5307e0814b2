"""The networks: two UNets of StyleGAN2 blocks, the copy attention between them, the discriminator."""
